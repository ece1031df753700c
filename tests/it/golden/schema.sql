-- index change_log_by_customer
CREATE INDEX change_log_by_customer ON change_log (customer_id, seq)

-- index change_log_by_intent
CREATE INDEX change_log_by_intent ON change_log (seq) WHERE origin = 'intent'

-- index event_by_customer
CREATE INDEX event_by_customer ON event (customer_id) WHERE is_open = 1

-- index event_by_seen
CREATE INDEX event_by_seen ON event (seen_at)

-- index held_customer_by_state
CREATE INDEX held_customer_by_state ON held_customer (state, customer_id)

-- index hint_by_due
CREATE INDEX hint_by_due ON hint (due_at) WHERE due_at IS NOT NULL

-- index intents_result
CREATE INDEX intents_result ON intents (result_customer_id) WHERE result_customer_id IS NOT NULL

-- index intents_state
CREATE INDEX intents_state ON intents (state)

-- index mirror_by_created_at
CREATE INDEX mirror_by_created_at ON mirror (created_at, deleted_at) WHERE deleted_at IS NULL

-- index mirror_by_deleted_at
CREATE INDEX mirror_by_deleted_at ON mirror (deleted_at) WHERE deleted_at IS NOT NULL

-- index mirror_by_email
CREATE INDEX mirror_by_email ON mirror (email) WHERE email IS NOT NULL

-- index outbox_deletes
CREATE INDEX outbox_deletes ON outbox (position) WHERE is_delete = 1 AND is_open = 1

-- index outbox_followers
CREATE INDEX outbox_followers ON outbox (position) WHERE is_follower = 1 AND is_open = 1

-- index outbox_head_of
CREATE INDEX outbox_head_of ON outbox (lane) WHERE is_head = 1

-- index outbox_heads
CREATE INDEX outbox_heads ON outbox (position) WHERE is_head = 1

-- index outbox_held
CREATE INDEX outbox_held ON outbox (position) WHERE held = 1

-- index outbox_lane
CREATE INDEX outbox_lane ON outbox (lane, position) WHERE is_open = 1

-- index outbox_open
CREATE INDEX outbox_open ON outbox (position) WHERE is_open = 1

-- index outbox_sending
CREATE INDEX outbox_sending ON outbox (lane) WHERE is_sending = 1

-- index outbox_sent_deletes
CREATE INDEX outbox_sent_deletes ON outbox (sent_boot, sent_boot_ms) WHERE sent_boot IS NOT NULL

-- index pass_of_whole_list
CREATE INDEX pass_of_whole_list ON pass (id) WHERE kind = 'sweep' AND outcome IN ('complete', 'held')

-- index recheck_by_due
CREATE INDEX recheck_by_due ON recheck (due_at)

-- index sqlite_autoindex_intents_1


-- index sqlite_autoindex_mirror_1


-- table account
CREATE TABLE account (
    one         INTEGER PRIMARY KEY CHECK (one = 1),
    salt        BLOB NOT NULL,
    fingerprint BLOB NOT NULL,
    bound_at    TEXT NOT NULL,
    candidate   BLOB,                      -- another key, to which none of the known customers answered
    stopped_at  TEXT,                      -- since when everything waits because of it
    CHECK ((candidate IS NULL) = (stopped_at IS NULL))
) STRICT

-- table alert
CREATE TABLE alert (
    kind       TEXT NOT NULL,
    thing      TEXT NOT NULL,              -- which hold, which intent, since when; empty where there can be one only
    noticed_at TEXT NOT NULL,
    told_at    TEXT,                       -- null: not yet
    PRIMARY KEY (kind, thing)
) STRICT, WITHOUT ROWID

-- table attempts
CREATE TABLE attempts (
    intent_id   TEXT NOT NULL,
    n           INTEGER NOT NULL,
    started_at  TEXT NOT NULL,
    finished_at TEXT,
    status      INTEGER,                     -- the HTTP status; null where no answer came
    outcome     TEXT,                        -- the state that it led to; null while it runs
    error       TEXT,
    PRIMARY KEY (intent_id, n)
) STRICT, WITHOUT ROWID

-- table busy_field
CREATE TABLE busy_field (
    field     TEXT PRIMARY KEY NOT NULL,
    customers INTEGER NOT NULL,               -- in how many customers it changed
    seen      INTEGER NOT NULL,               -- how many customers the sweep saw
    sweeps    INTEGER NOT NULL,               -- in how many complete sweeps in a row
    since     TEXT NOT NULL                   -- when the first of these sweeps ended
) STRICT, WITHOUT ROWID

-- table change_event
CREATE TABLE change_event (
    seq      INTEGER PRIMARY KEY,           -- the change
    event_at TEXT NOT NULL,                 -- when the event happened, by the clock of this machine
    seen_at  TEXT NOT NULL                  -- when the event was read or received
) STRICT

-- table change_log
CREATE TABLE change_log (
    seq         INTEGER PRIMARY KEY,
    customer_id TEXT NOT NULL,
    kind        TEXT NOT NULL CHECK (kind IN ('created', 'updated', 'deleted', 'restored', 'erased')),
    observed_at TEXT NOT NULL,
    origin      TEXT NOT NULL CHECK (origin IN ('sweep', 'probe', 'event', 'intent', 'lookup', 'operator')),
    pass_id     INTEGER,
    intent_id   TEXT,
    after       TEXT,                      -- the customer's body; null when gone, and once redacted
    redacts     TEXT,                      -- an erasure: the seqs whose content it took away, as a JSON array
    salt        BLOB,                      -- null once redacted
    digest      BLOB NOT NULL CHECK (length(digest) = 32),
    chain       BLOB NOT NULL CHECK (length(chain) = 32)
) STRICT

-- table event
CREATE TABLE event (
    id          TEXT PRIMARY KEY NOT NULL,  -- the event's id at KOMOJU
    customer_id TEXT,                       -- null where the event names no customer
    event_at    TEXT NOT NULL,              -- when it happened, by the clock of this machine
    seen_at     TEXT NOT NULL,              -- when it was read or received first
    is_open     INTEGER NOT NULL            -- 1 until its change is found, or its customer was read and had not changed
) STRICT, WITHOUT ROWID

-- table event_state
CREATE TABLE event_state (
    one              INTEGER PRIMARY KEY CHECK (one = 1),
    cursor_at        TEXT,                  -- up to where the event list was read, by the server's clock
    last_read_at     TEXT,                  -- when the event list was last read
    last_event_at    TEXT,                  -- when a new event about a customer was last read or received
    off_since        TEXT,                  -- since when the event list cannot be read …
    off_reason       TEXT,                  -- … and why; masked
    gap_at           TEXT,                  -- when more events were new than are read at once
    paused_until     TEXT,                  -- until when hinted customers are not requested …
    pause_reason     TEXT,                  -- … and why
    dropped_at       TEXT,                  -- when hints were dropped for a sweep: older events make no hint
    without_customer INTEGER NOT NULL DEFAULT 0,  -- how many events about a customer did not name it
    counted_since    TEXT,                  -- since when changes and their events are counted …
    counted_from     INTEGER                -- … and the end of the change log then
) STRICT

-- table held_customer
CREATE TABLE held_customer (
    hold_id     INTEGER NOT NULL REFERENCES hold (id),
    customer_id TEXT NOT NULL,
    state       TEXT NOT NULL CHECK (state IN ('held', 'approved', 'rejected', 'superseded', 'deleted', 'alive', 'seen')),
    PRIMARY KEY (hold_id, customer_id)
) STRICT, WITHOUT ROWID

-- table hint
CREATE TABLE hint (
    customer_id  TEXT PRIMARY KEY NOT NULL,
    first_at     TEXT NOT NULL,             -- when the first open hint of it arrived
    due_at       TEXT,                      -- when it is requested; null once it is answered
    requested_at TEXT,                      -- when it was requested last
    is_second    INTEGER NOT NULL,          -- 1 where the request at due_at repeats one that showed nothing new
    hints        INTEGER NOT NULL           -- rises with each hint, so that one during the request is noticed
) STRICT, WITHOUT ROWID

-- table hold
CREATE TABLE hold (
    id         INTEGER PRIMARY KEY,
    pass_id    INTEGER NOT NULL,
    opened_at  TEXT NOT NULL,
    because    TEXT NOT NULL CHECK (because IN ('too_many', 'unproven', 'restored')),
    decided_at TEXT,
    decided_by TEXT
) STRICT

-- table intents
CREATE TABLE intents (
    id                 TEXT NOT NULL UNIQUE DEFAULT (lower(hex(randomblob(16)))),
    position           INTEGER PRIMARY KEY,  -- order of acceptance
    op                 TEXT NOT NULL,
    customer_id        TEXT,                 -- or '@ID': the customer that this intent creates
    body               TEXT,                 -- JSON; the token in it is masked once the intent is settled
    expect             TEXT,                 -- JSON
    not_before         TEXT,
    door               TEXT NOT NULL DEFAULT 'sql',
    submitted_by       TEXT,
    created_at         TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    state              TEXT NOT NULL DEFAULT 'queued',
    attempts           INTEGER NOT NULL DEFAULT 0,
    next_attempt_at    TEXT,
    settled_at         TEXT,
    result_customer_id TEXT,
    change_seq         INTEGER,              -- the change that records what took effect
    reason             TEXT,                 -- why it is where it is, in words
    detail             TEXT                  -- JSON
)

-- table listed
CREATE TABLE listed (
    row         INTEGER PRIMARY KEY,                             -- the mirror's
    fingerprint BLOB NOT NULL,
    source      INTEGER NOT NULL CHECK (source BETWEEN 0 AND 2)  -- shown, absent, carried on
) STRICT

-- table meta
CREATE TABLE meta (
    one             INTEGER PRIMARY KEY CHECK (one = 1),
    log_id          TEXT NOT NULL,
    schema_version  INTEGER NOT NULL,
    refused_since   TEXT,                  -- the API refuses the key since then
    throttled_until TEXT,                  -- the API asked us to wait until then
    live            INTEGER NOT NULL DEFAULT 0,  -- how many customers the mirror holds, so that nobody need count them
    deleted         INTEGER NOT NULL DEFAULT 0,
    is_backup       INTEGER NOT NULL DEFAULT 0,  -- 1 in a copy made by "backup": only "restore" makes a database of it
    restored_at     TEXT                         -- when it was restored; until a whole sweep has concluded, which holds all deletions
, outbound_enabled INTEGER NOT NULL DEFAULT 1, left_over_tokens INTEGER NOT NULL DEFAULT 0, engine INTEGER NOT NULL DEFAULT 0, unscrubbed_erasure INTEGER, spool_problem TEXT, scrubbed_tokens INTEGER NOT NULL DEFAULT 0, wiped_tokens INTEGER NOT NULL DEFAULT 0, scrubbed_erasure INTEGER, scrubbed_wal INTEGER, wipe_since TEXT, wipe_blocked INTEGER NOT NULL DEFAULT 0, confirmed_at TEXT, confirmed_boot TEXT, confirmed_boot_ms INTEGER, following INTEGER, slowed TEXT, sweeps INTEGER NOT NULL DEFAULT 0, vain_sweeps INTEGER NOT NULL DEFAULT 0, above_limit_at TEXT, longest_lag_ms INTEGER, lag_exceeded_at TEXT, list_report TEXT, page_ignored INTEGER NOT NULL DEFAULT 0) STRICT

-- table mirror
CREATE TABLE mirror (
    row           INTEGER PRIMARY KEY,     -- ours, small and dense: what a sweep marks as seen
    id            TEXT NOT NULL UNIQUE,
    email         TEXT,
    created_at    TEXT,
    body          TEXT NOT NULL,
    first_seen_at TEXT NOT NULL,
    changed_at    TEXT NOT NULL,
    deleted_at    TEXT,                    -- null while live
    live_seq      INTEGER NOT NULL,        -- the change that last made it live
    seq           INTEGER NOT NULL         -- the last change of it
) STRICT

-- table outbox
CREATE TABLE outbox (
    position         INTEGER PRIMARY KEY REFERENCES intents (position),
    lane             TEXT NOT NULL,               -- whose intents run one after the other: a customer's id, or '@' and a create's id
    is_open          INTEGER NOT NULL DEFAULT 1,  -- queued, sending, waiting or parked: it blocks those behind it in its lane
    is_head          INTEGER NOT NULL DEFAULT 0,  -- the first open one of its lane
    is_sending       INTEGER NOT NULL DEFAULT 0,
    is_delete        INTEGER NOT NULL DEFAULT 0,
    is_follower      INTEGER NOT NULL DEFAULT 0,  -- its customer is not there yet: a create makes it
    held             INTEGER NOT NULL DEFAULT 0,  -- one of too many deletes: it waits for a person
    approved         INTEGER NOT NULL DEFAULT 0,  -- a person let this delete through
    content          BLOB,                        -- what was dropped, as a digest: the same id with the same content is the same intent
    outcome_unknown  INTEGER NOT NULL DEFAULT 0,  -- an attempt may have taken effect
    -- Frozen with the first attempt, and committed before its first byte leaves:
    key              TEXT,                        -- a create's idempotency key
    tag              TEXT,                        -- the metadata key by which a create carries the intent's id
    base             TEXT,                        -- an update with a token: the customer before it, as the mirror had it
    first_attempt_at TEXT,                        -- with this key
    first_boot       TEXT,                        -- the machine's boot that it was in …
    first_boot_ms    INTEGER,                     -- … and how long after it
    first_server_at  TEXT,                        -- what the server's clock said then
    first_seq        INTEGER,                     -- the last change of the log then: whom the mirror had by it this create did not make
    met_server_error INTEGER NOT NULL DEFAULT 0,  -- the API itself failed in an attempt with this key
    erased           INTEGER NOT NULL DEFAULT 0,  -- its content went with its customer: it is a record, and cannot be tried again
    patience_from    TEXT                         -- when park_after_h began to count; later by the time that the key was refused
, sent_boot TEXT, sent_boot_ms INTEGER, wait_ms INTEGER, patience_boot TEXT, patience_boot_ms INTEGER, followed_state TEXT) STRICT

-- table pass
CREATE TABLE "pass" (
    id             INTEGER PRIMARY KEY,
    kind           TEXT NOT NULL CHECK (kind IN ('sweep', 'probe')),
    started_at     TEXT NOT NULL,
    finished_at    TEXT,
    outcome        TEXT CHECK (outcome IN ('complete', 'partial', 'interrupted', 'failed', 'held')),
    resumed        INTEGER NOT NULL DEFAULT 0,
    pages          INTEGER NOT NULL DEFAULT 0,  -- how many are applied; in the first round from the first one on without a gap
    last_page      INTEGER NOT NULL DEFAULT 0,  -- up to which page the list is known to go; 0 while that is not known
    per_page       INTEGER NOT NULL DEFAULT 0,  -- how many customers a page of this pass is to hold
    since_at       TEXT,                        -- when the process that works on it began with it …
    since_pages    INTEGER NOT NULL DEFAULT 0,  -- … and how many pages were applied by then
    requests       INTEGER NOT NULL DEFAULT 0,
    customers_seen INTEGER NOT NULL DEFAULT 0,
    created        INTEGER NOT NULL DEFAULT 0,
    updated        INTEGER NOT NULL DEFAULT 0,
    deleted        INTEGER NOT NULL DEFAULT 0,
    restored       INTEGER NOT NULL DEFAULT 0,
    error          TEXT,
    unreadable     INTEGER NOT NULL DEFAULT 0,
    unverified     INTEGER NOT NULL DEFAULT 0,  -- live customers that were neither listed nor verified: the sweep is partial
    CHECK ((finished_at IS NULL) = (outcome IS NULL))
) STRICT

-- table recall
CREATE TABLE recall (
    day      TEXT PRIMARY KEY NOT NULL,
    changes  INTEGER NOT NULL,
    reported INTEGER NOT NULL
) STRICT, WITHOUT ROWID

-- table recheck
CREATE TABLE recheck (
    customer_id TEXT PRIMARY KEY NOT NULL,
    due_at      TEXT NOT NULL,
    shown       BLOB                  -- a digest of what that read showed, where the log had replaced it
) STRICT, WITHOUT ROWID

-- table spool_file
CREATE TABLE spool_file (
    name       TEXT PRIMARY KEY,
    taken_at   TEXT NOT NULL,
    is_settled INTEGER NOT NULL DEFAULT 0  -- all its intents are, and the receipt says so
, claim TEXT, accepted_bytes INTEGER, accepted_digest TEXT) STRICT, WITHOUT ROWID

-- table spool_intent
CREATE TABLE spool_intent (
    name      TEXT NOT NULL REFERENCES spool_file (name) ON DELETE CASCADE,
    line      INTEGER NOT NULL,
    intent_id TEXT NOT NULL, is_repeat INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (name, line)
) STRICT, WITHOUT ROWID

-- table unlisted
CREATE TABLE unlisted (
    customer_id    TEXT PRIMARY KEY NOT NULL,
    since_sweep    INTEGER NOT NULL,  -- the first sweep (by meta.sweeps) that did not list it …
    verified_sweep INTEGER NOT NULL,  -- … and the last one in which it answered
    verified_at    TEXT NOT NULL
) STRICT, WITHOUT ROWID

-- table unreadable_customer
CREATE TABLE unreadable_customer (
    key           TEXT PRIMARY KEY NOT NULL,  -- 'id:' and the id, or 'text:' and a digest of the text where the id cannot be read
    id            TEXT,
    page          INTEGER,                    -- null where it was requested by its id
    position      INTEGER,                    -- from 1
    reason        TEXT NOT NULL,
    first_seen_at TEXT NOT NULL,
    last_seen_at  TEXT NOT NULL,
    pass_id       INTEGER,                    -- the pass that saw it last
    sweeps        INTEGER NOT NULL DEFAULT 0  -- how many complete sweeps have found it: up to 1 it is new
) STRICT, WITHOUT ROWID

-- trigger account_protected_delete
CREATE TRIGGER account_protected_delete BEFORE DELETE ON account WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'account: only komoju-sync writes this table; `komoju-sync account accept` binds it to another account'); END

-- trigger account_protected_insert
CREATE TRIGGER account_protected_insert BEFORE INSERT ON account WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'account: only komoju-sync writes this table; `komoju-sync account accept` binds it to another account'); END

-- trigger account_protected_update
CREATE TRIGGER account_protected_update BEFORE UPDATE ON account WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'account: only komoju-sync writes this table; `komoju-sync account accept` binds it to another account'); END

-- trigger alert_protected_delete
CREATE TRIGGER alert_protected_delete BEFORE DELETE ON alert WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'alert: only komoju-sync writes this table'); END

-- trigger alert_protected_insert
CREATE TRIGGER alert_protected_insert BEFORE INSERT ON alert WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'alert: only komoju-sync writes this table'); END

-- trigger alert_protected_update
CREATE TRIGGER alert_protected_update BEFORE UPDATE ON alert WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'alert: only komoju-sync writes this table'); END

-- trigger attempts_protected_insert
CREATE TRIGGER attempts_protected_insert BEFORE INSERT ON attempts WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'attempts: only komoju-sync writes this table'); END

-- trigger attempts_protected_update
CREATE TRIGGER attempts_protected_update BEFORE UPDATE ON attempts WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'attempts: only komoju-sync writes this table'); END

-- trigger attempts_stay
CREATE TRIGGER attempts_stay BEFORE DELETE ON attempts
BEGIN
    SELECT RAISE(ABORT, 'the journal of attempts is never shortened');
END

-- trigger busy_field_protected_delete
CREATE TRIGGER busy_field_protected_delete BEFORE DELETE ON busy_field WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'busy_field: only komoju-sync writes this table'); END

-- trigger busy_field_protected_insert
CREATE TRIGGER busy_field_protected_insert BEFORE INSERT ON busy_field WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'busy_field: only komoju-sync writes this table'); END

-- trigger busy_field_protected_update
CREATE TRIGGER busy_field_protected_update BEFORE UPDATE ON busy_field WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'busy_field: only komoju-sync writes this table'); END

-- trigger change_event_protected_delete
CREATE TRIGGER change_event_protected_delete BEFORE DELETE ON change_event WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'change_event: only komoju-sync writes this table'); END

-- trigger change_event_protected_insert
CREATE TRIGGER change_event_protected_insert BEFORE INSERT ON change_event WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'change_event: only komoju-sync writes this table'); END

-- trigger change_event_protected_update
CREATE TRIGGER change_event_protected_update BEFORE UPDATE ON change_event WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'change_event: only komoju-sync writes this table'); END

-- trigger change_log_appends
CREATE TRIGGER change_log_appends BEFORE INSERT ON change_log
WHEN sqlite_source_id() <> 'komoju-sync' OR NEW.seq IS NOT (SELECT coalesce(max(seq), 0) + 1 FROM change_log)
BEGIN
    SELECT RAISE(ABORT, 'the change log is append-only: only komoju-sync adds an entry, at its end');
END

-- trigger change_log_keeps
CREATE TRIGGER change_log_keeps BEFORE DELETE ON change_log
BEGIN
    SELECT RAISE(ABORT, 'the change log is append-only: no entry is ever removed');
END

-- trigger change_log_redacts
CREATE TRIGGER change_log_redacts BEFORE UPDATE ON change_log
WHEN sqlite_source_id() <> 'komoju-sync'
    OR NOT (NEW.seq IS OLD.seq AND NEW.customer_id IS OLD.customer_id AND NEW.kind IS OLD.kind
    AND NEW.observed_at IS OLD.observed_at AND NEW.origin IS OLD.origin AND NEW.pass_id IS OLD.pass_id
    AND NEW.intent_id IS OLD.intent_id AND NEW.redacts IS OLD.redacts AND NEW.digest IS OLD.digest
    AND NEW.chain IS OLD.chain AND NEW.after IS NULL AND NEW.salt IS NULL)
BEGIN
    SELECT RAISE(ABORT, 'the change log is append-only: an entry is never changed, and only `komoju-sync erase` redacts it');
END

-- trigger event_protected_delete
CREATE TRIGGER event_protected_delete BEFORE DELETE ON event WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'event: only komoju-sync writes this table'); END

-- trigger event_protected_insert
CREATE TRIGGER event_protected_insert BEFORE INSERT ON event WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'event: only komoju-sync writes this table'); END

-- trigger event_protected_update
CREATE TRIGGER event_protected_update BEFORE UPDATE ON event WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'event: only komoju-sync writes this table'); END

-- trigger event_state_protected_delete
CREATE TRIGGER event_state_protected_delete BEFORE DELETE ON event_state WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'event_state: only komoju-sync writes this table'); END

-- trigger event_state_protected_insert
CREATE TRIGGER event_state_protected_insert BEFORE INSERT ON event_state WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'event_state: only komoju-sync writes this table'); END

-- trigger event_state_protected_update
CREATE TRIGGER event_state_protected_update BEFORE UPDATE ON event_state WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'event_state: only komoju-sync writes this table'); END

-- trigger held_customer_protected_delete
CREATE TRIGGER held_customer_protected_delete BEFORE DELETE ON held_customer WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'held_customer: only komoju-sync writes this table; `komoju-sync deletions` decides about held deletions'); END

-- trigger held_customer_protected_insert
CREATE TRIGGER held_customer_protected_insert BEFORE INSERT ON held_customer WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'held_customer: only komoju-sync writes this table; `komoju-sync deletions` decides about held deletions'); END

-- trigger held_customer_protected_update
CREATE TRIGGER held_customer_protected_update BEFORE UPDATE ON held_customer WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'held_customer: only komoju-sync writes this table; `komoju-sync deletions` decides about held deletions'); END

-- trigger hint_protected_delete
CREATE TRIGGER hint_protected_delete BEFORE DELETE ON hint WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'hint: only komoju-sync writes this table'); END

-- trigger hint_protected_insert
CREATE TRIGGER hint_protected_insert BEFORE INSERT ON hint WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'hint: only komoju-sync writes this table'); END

-- trigger hint_protected_update
CREATE TRIGGER hint_protected_update BEFORE UPDATE ON hint WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'hint: only komoju-sync writes this table'); END

-- trigger hold_protected_delete
CREATE TRIGGER hold_protected_delete BEFORE DELETE ON hold WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'hold: only komoju-sync writes this table; `komoju-sync deletions` decides about held deletions'); END

-- trigger hold_protected_insert
CREATE TRIGGER hold_protected_insert BEFORE INSERT ON hold WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'hold: only komoju-sync writes this table; `komoju-sync deletions` decides about held deletions'); END

-- trigger hold_protected_update
CREATE TRIGGER hold_protected_update BEFORE UPDATE ON hold WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'hold: only komoju-sync writes this table; `komoju-sync deletions` decides about held deletions'); END

-- trigger intents_accepted
CREATE TRIGGER intents_accepted AFTER INSERT ON intents
BEGIN
    SELECT RAISE(ABORT, 'a writer sets op, customer_id, body, id, expect, not_before and submitted_by; the rest is set here')
        WHERE NEW.position IS NOT 1 + (SELECT coalesce(max(position), 0) FROM intents WHERE position < NEW.position)
           OR EXISTS (SELECT 1 FROM intents WHERE position > NEW.position);
    UPDATE meta SET following = NEW.position WHERE following IS NULL AND sqlite_source_id() <> 'komoju-sync';
    INSERT INTO outbox (position, followed_state, lane, is_delete) VALUES (NEW.position, NEW.state, CASE
        WHEN NEW.op = 'create' THEN '@' || NEW.id
        -- A customer that a create has already made has its own lane.
        ELSE coalesce((SELECT result_customer_id FROM intents WHERE id = substr(NEW.customer_id, 2) AND NEW.customer_id GLOB '@*'),
                      NEW.customer_id) END, NEW.op = 'delete');
    UPDATE outbox SET is_follower = NEW.op <> 'create' AND NEW.customer_id GLOB '@*' AND lane = NEW.customer_id,
                      is_head = NOT EXISTS (SELECT 1 FROM outbox AS ahead
                          WHERE ahead.lane = outbox.lane AND ahead.position < NEW.position AND ahead.is_open = 1)
        WHERE position = NEW.position;
    UPDATE meta SET following = NULL WHERE following = NEW.position;
END

-- trigger intents_door
CREATE TRIGGER intents_door BEFORE INSERT ON intents
BEGIN
    SELECT RAISE(ABORT, 'nothing is accepted: since the last start of run or sync pushing is switched off (outbound.enabled = false)')
        WHERE (SELECT outbound_enabled FROM meta) = 0;
    SELECT RAISE(ABORT, 'a writer sets op, customer_id, body, id, expect, not_before and submitted_by; the rest is set here')
        WHERE NEW.state IS NOT 'queued' OR NEW.attempts IS NOT 0 OR NEW.next_attempt_at IS NOT NULL OR NEW.settled_at IS NOT NULL
           OR NEW.result_customer_id IS NOT NULL OR NEW.change_seq IS NOT NULL OR NEW.reason IS NOT NULL OR NEW.detail IS NOT NULL
           OR typeof(NEW.created_at) <> 'text' OR strftime('%Y-%m-%dT%H:%M:%fZ', NEW.created_at) IS NOT NEW.created_at
           OR abs(julianday(NEW.created_at) - julianday('now')) > 0.0001 OR EXISTS (SELECT 1 FROM intents WHERE position = NEW.position);
    SELECT RAISE(ABORT, 'door: must be sql, file or cli') WHERE NEW.door IS NULL OR NEW.door NOT IN ('sql', 'file', 'cli');
    SELECT RAISE(ABORT, 'op: must be create, update or delete')
        WHERE NEW.op IS NULL OR NEW.op NOT IN ('create', 'update', 'delete');
    SELECT RAISE(ABORT, 'id: must have 1 to 255 bytes, no control characters, and not begin with @')
        WHERE typeof(NEW.id) <> 'text' OR length(CAST(NEW.id AS BLOB)) NOT BETWEEN 1 AND 255 OR NEW.id GLOB '@*'
           OR NEW.id GLOB '*[' || char(1) || '-' || char(31) || char(127) || '-' || char(159) || ']*';
    SELECT CASE name
            WHEN 'id' THEN RAISE(ABORT, 'id: must not contain a NUL character')
            WHEN 'customer_id' THEN RAISE(ABORT, 'customer_id: must not contain a NUL character')
            WHEN 'body' THEN RAISE(ABORT, 'body: must not contain a NUL character')
            WHEN 'expect' THEN RAISE(ABORT, 'expect: must not contain a NUL character')
            WHEN 'not_before' THEN RAISE(ABORT, 'not_before: must not contain a NUL character')
            ELSE RAISE(ABORT, 'submitted_by: must not contain a NUL character') END
        FROM (SELECT 'id' AS name, NEW.id AS value UNION ALL SELECT 'customer_id', NEW.customer_id UNION ALL SELECT 'body', NEW.body
              UNION ALL SELECT 'expect', NEW.expect UNION ALL SELECT 'not_before', NEW.not_before
              UNION ALL SELECT 'submitted_by', NEW.submitted_by)
        WHERE instr(CAST(value AS BLOB), x'00') > 0;
    -- UTF-8, in time that grows with the length alone: each byte becomes the letter of its class (1 to 3: continuations 80 to 8F,
    -- 90 to 9F, A0 to BF; 4: C2 to DF; 5: E0; 6: E1 to EF but ED; 7: ED; 8: F0; 9: F1 to F3; 10: F4), then each sequence of classes
    -- that is a character becomes an x. What is left of the classes, or of other bytes, is no text.
    SELECT CASE name
            WHEN 'id' THEN RAISE(ABORT, 'id: must be UTF-8')
            WHEN 'customer_id' THEN RAISE(ABORT, 'customer_id: must be UTF-8')
            WHEN 'body' THEN RAISE(ABORT, 'body: must be UTF-8')
            WHEN 'expect' THEN RAISE(ABORT, 'expect: must be UTF-8')
            ELSE RAISE(ABORT, 'submitted_by: must be UTF-8') END
        FROM (
            WITH RECURSIVE classes (name, byte, rest) AS (
                SELECT name, 1, value
                FROM (SELECT 'id' AS name, NEW.id AS value UNION ALL SELECT 'customer_id', NEW.customer_id
                      UNION ALL SELECT 'body', NEW.body UNION ALL SELECT 'expect', NEW.expect
                      UNION ALL SELECT 'submitted_by', NEW.submitted_by)
                -- The other doors read texts that were checked already.
                WHERE sqlite_source_id() <> 'komoju-sync' AND value GLOB '*[^' || char(1) || '-' || char(127) || ']*'
                UNION ALL
                SELECT name, byte + 1, replace(rest, CAST(substr(x'0102030405060708090a808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9fa0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbebfc2c3c4c5c6c7c8c9cacbcccdcecfd0d1d2d3d4d5d6d7d8d9dadbdcdddedfe0e1e2e3e4e5e6e7e8e9eaebecedeeeff0f1f2f3f4', byte, 1) AS TEXT),
                    CASE WHEN byte <= 10 THEN 'x' ELSE char(CASE
                        WHEN byte <= 26 THEN 1 WHEN byte <= 42 THEN 2 WHEN byte <= 74 THEN 3 WHEN byte <= 104 THEN 4
                        WHEN byte = 105 THEN 5 WHEN byte = 118 THEN 7 WHEN byte <= 120 THEN 6 WHEN byte = 121 THEN 8
                        WHEN byte <= 124 THEN 9 ELSE 10 END) END)
                FROM classes WHERE byte <= 125)
            SELECT name, replace(replace(replace(replace(replace(replace(rest,
                char(5, 3), char(4)), char(7, 1), char(4)), char(7, 2), char(4)),
                char(8, 2), char(6)), char(8, 3), char(6)), char(10, 1), char(6)) AS rest
            FROM classes WHERE byte = 126)
        WHERE replace(replace(replace(replace(replace(rest, char(1), char(3)), char(2), char(3)),
            char(9, 3, 3, 3), 'x'), char(6, 3, 3), 'x'), char(4, 3), 'x') GLOB '*[^' || char(11) || '-' || char(127) || ']*';
    SELECT RAISE(ABORT, 'id: was used before') WHERE EXISTS (SELECT 1 FROM intents WHERE id = NEW.id);

    SELECT RAISE(ABORT, 'customer_id: cannot be given with a create') WHERE NEW.op = 'create' AND NEW.customer_id IS NOT NULL;
    SELECT RAISE(ABORT, 'customer_id: must be given') WHERE NEW.op <> 'create' AND NEW.customer_id IS NULL;
    SELECT RAISE(ABORT, 'customer_id: must have 1 to 1024 bytes without white space, control characters, /, \, %, ? and #, and be neither "." nor ".."')
        WHERE NEW.customer_id IS NOT NULL AND (typeof(NEW.customer_id) <> 'text'
           OR length(CAST(NEW.customer_id AS BLOB)) NOT BETWEEN 1 AND 1024 OR NEW.customer_id IN ('.', '..')
           OR (NOT (NEW.customer_id GLOB '@*') AND NEW.customer_id GLOB '*[#%/?\' || char(1) || '-' || char(32) || char(127) || '-' || char(160)
               || char(5760) || char(8192) || '-' || char(8202) || char(8232, 8233, 8239, 8287, 12288) || ']*'));
    SELECT RAISE(ABORT, 'customer_id: must be @ and the id of a create that was accepted before')
        WHERE NEW.customer_id GLOB '@*'
          AND NOT EXISTS (SELECT 1 FROM intents WHERE id = substr(NEW.customer_id, 2) AND op = 'create');

    SELECT RAISE(ABORT, 'body: must be a JSON object')
        WHERE NEW.body IS NOT NULL AND (typeof(NEW.body) <> 'text' OR NOT json_valid(NEW.body));
    SELECT RAISE(ABORT, 'body: must be a JSON object') WHERE NEW.body IS NOT NULL AND json_type(NEW.body) IS NOT 'object';
    SELECT RAISE(ABORT, 'body: cannot be given with a delete') WHERE NEW.op = 'delete' AND NEW.body IS NOT NULL;
    SELECT RAISE(ABORT, 'body: a create needs at least one parameter: currency, email, metadata, payment_details')
        WHERE NEW.op = 'create' AND NOT EXISTS (SELECT 1 FROM json_each(coalesce(NEW.body, '{}')));
    SELECT RAISE(ABORT, 'body: an update must change something')
        WHERE NEW.op = 'update' AND NOT EXISTS (SELECT 1 FROM json_each(coalesce(NEW.body, '{}')));
    SELECT RAISE(ABORT, 'body: known fields are currency, email, metadata and payment_details')
        WHERE EXISTS (SELECT 1 FROM json_each(NEW.body) WHERE key NOT IN ('currency', 'email', 'metadata', 'payment_details'));
    SELECT RAISE(ABORT, 'body.email: must be a text or null')
        WHERE EXISTS (SELECT 1 FROM json_each(NEW.body) WHERE key = 'email' AND type NOT IN ('text', 'null'));
    SELECT RAISE(ABORT, 'body.currency: must be a text')
        WHERE EXISTS (SELECT 1 FROM json_each(NEW.body) WHERE key = 'currency' AND type <> 'text');
    SELECT RAISE(ABORT, 'body.payment_details: must be a payment token, a text; card numbers never enter this system')
        WHERE EXISTS (SELECT 1 FROM json_each(NEW.body) AS field WHERE key = 'payment_details' AND (type <> 'text'
            -- 12 to 19 digits, ASCII or full-width, among white space and hyphens.
            OR (SELECT trim(field.value, digits || char(32, 45, 133, 160, 5760, 8192, 8193, 8194, 8195, 8196, 8197, 8198, 8199, 8200, 8201, 8202, 8208, 8209, 8210,
                        8211, 8212, 8213, 8232, 8233, 8239, 8287, 8722, 12288, 65293, 9, 10, 11, 12, 13)) = ''
                    AND (SELECT sum(length(field.value) - length(replace(field.value, substr(digits, place.key + 1, 1), '')))
                         FROM json_each('[0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19]') AS place) BETWEEN 12 AND 19
                FROM (SELECT '0123456789０１２３４５６７８９' AS digits))));
    SELECT RAISE(ABORT, 'body.metadata: must be a JSON object')
        WHERE EXISTS (SELECT 1 FROM json_each(NEW.body) WHERE key = 'metadata' AND type <> 'object');
    -- By the field's name as it is read, not by a path: an older SQLite finds no name that is written with escapes by its path.
    SELECT RAISE(ABORT, 'body.metadata: a key has more than 30 characters')
        WHERE EXISTS (SELECT 1 FROM json_each(NEW.body) AS field, json_each(CASE field.key WHEN 'metadata' THEN field.value END) AS entry
                      WHERE length(entry.key) > 30);
    SELECT RAISE(ABORT, 'body.metadata: a value must be a text or null')
        WHERE EXISTS (SELECT 1 FROM json_each(NEW.body) AS field, json_each(CASE field.key WHEN 'metadata' THEN field.value END) AS entry
                      WHERE entry.type NOT IN ('text', 'null'));
    SELECT RAISE(ABORT, 'body.metadata: a value has more than 2000 characters')
        WHERE EXISTS (SELECT 1 FROM json_each(NEW.body) AS field, json_each(CASE field.key WHEN 'metadata' THEN field.value END) AS entry
                      WHERE length(entry.value) > 2000);
    -- For the same reason the token, which must be found again to be masked, has its name written in plain letters.
    SELECT RAISE(ABORT, 'body.payment_details: the letters of its name must be written without escapes')
        WHERE EXISTS (SELECT 1 FROM json_each(NEW.body) WHERE key = 'payment_details')
          AND (NEW.body GLOB '*\u005[fF]*' OR NEW.body GLOB '*\u006[1-9a-fA-F]*' OR NEW.body GLOB '*\u007[0-9aA]*');

    SELECT RAISE(ABORT, 'expect: cannot be given with a create') WHERE NEW.op = 'create' AND NEW.expect IS NOT NULL;
    SELECT RAISE(ABORT, 'expect: must be a JSON object')
        WHERE NEW.expect IS NOT NULL AND (typeof(NEW.expect) <> 'text' OR NOT json_valid(NEW.expect));
    SELECT RAISE(ABORT, 'expect: must be a JSON object') WHERE NEW.expect IS NOT NULL AND json_type(NEW.expect) IS NOT 'object';
    SELECT RAISE(ABORT, 'expect: known fields are email, locale, metadata and source')
        WHERE EXISTS (SELECT 1 FROM json_each(NEW.expect) WHERE key NOT IN ('email', 'locale', 'metadata', 'source'));
    SELECT RAISE(ABORT, 'expect.metadata: must be a JSON object')
        WHERE EXISTS (SELECT 1 FROM json_each(NEW.expect) WHERE key = 'metadata' AND type <> 'object');
    SELECT CASE name WHEN 'body' THEN RAISE(ABORT, 'body: a text has half of a surrogate pair') ELSE RAISE(ABORT, 'expect: a text has half of a surrogate pair') END
        -- With escaped backslashes out of the way: 1 where the first half of a pair begins, 2 where the second does.
        FROM (SELECT name, replace(replace(replace(replace(replace(replace(replace(replace(lower(replace(value, '\\', 'x')),
                  '\ud8', char(1)), '\ud9', char(1)), '\uda', char(1)), '\udb', char(1)),
                  '\udc', char(2)), '\udd', char(2)), '\ude', char(2)), '\udf', char(2)) AS halves
              FROM (SELECT 'body' AS name, NEW.body AS value UNION ALL SELECT 'expect', NEW.expect)
              WHERE value LIKE '%\ud%')
        WHERE halves GLOB '*' || char(1) || '??[^' || char(2) || ']*'
           OR length(replace(halves, char(1), '')) <> length(replace(halves, char(2), ''));
    SELECT CASE name WHEN 'body' THEN RAISE(ABORT, 'body: a key appears twice in one object') ELSE RAISE(ABORT, 'expect: a key appears twice in one object') END
        FROM (SELECT 'body' AS name, parent, key FROM json_tree(NEW.body) WHERE key IS NOT NULL
              UNION ALL SELECT 'expect', parent, key FROM json_tree(NEW.expect) WHERE key IS NOT NULL)
        GROUP BY name, parent, key HAVING count(*) > 1;
    -- A body's rules leave it no depth.
    SELECT RAISE(ABORT, 'expect: must have at most 99 levels')
        WHERE length(NEW.expect) - length(replace(replace(NEW.expect, '{', ''), '[', '')) > 99 AND EXISTS (
            WITH RECURSIVE levels (level, value) AS (
                SELECT 1, NEW.expect
                UNION ALL
                SELECT level + 1, inner.value FROM levels, json_each(levels.value) AS inner
                WHERE inner.type IN ('object', 'array') AND level < 100)
            SELECT 1 FROM levels WHERE level = 100);
    SELECT RAISE(ABORT, 'not_before: must be a time such as 2026-01-31T09:30:00Z')
        WHERE NEW.not_before IS NOT NULL AND (typeof(NEW.not_before) <> 'text' OR julianday(NEW.not_before) IS NULL
           OR date(substr(NEW.not_before, 1, 10), '+0 days') IS NOT substr(NEW.not_before, 1, 10)
           OR substr(NEW.not_before, 1, 19) NOT GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9]'
           OR substr(NEW.not_before, 12, 2) > '23'
           OR NOT (NEW.not_before GLOB '*Z' OR substr(NEW.not_before, -6) GLOB '[+-]0[0-9]:[0-5][0-9]'
                   OR substr(NEW.not_before, -6) GLOB '[+-]1[0-4]:[0-5][0-9]')
           -- Between the seconds and Z or the offset: nothing, or a fraction to the nanosecond.
           OR EXISTS (SELECT 1 FROM (SELECT substr(NEW.not_before, 20, max(0, length(NEW.not_before)
                                       - CASE WHEN NEW.not_before GLOB '*Z' THEN 20 ELSE 25 END)) AS fraction)
                      WHERE fraction <> '' AND (rtrim(fraction, '0123456789') <> '.' OR length(fraction) NOT BETWEEN 2 AND 10)));
END

-- trigger intents_follow
CREATE TRIGGER intents_follow AFTER UPDATE OF state ON intents WHEN NEW.state IS NOT OLD.state
BEGIN
    UPDATE meta SET following = NEW.position WHERE following IS NULL AND sqlite_source_id() <> 'komoju-sync';
    UPDATE outbox SET followed_state = NEW.state, is_open = NEW.state IN ('queued', 'sending', 'waiting', 'parked'), is_sending = NEW.state = 'sending',
                      held = held AND NEW.state IN ('queued', 'waiting'),
                      base = CASE WHEN NEW.state NOT IN ('done', 'rejected', 'cancelled') THEN base END
        WHERE position = NEW.position;
    -- Followers of this create move to the lane of the customer that it made; …
    UPDATE outbox SET lane = NEW.result_customer_id, is_follower = 0
        WHERE NEW.op = 'create' AND NEW.state = 'done' AND NEW.result_customer_id IS NOT NULL AND lane = '@' || NEW.id AND is_open = 1;
    -- … where there will be no customer, they park.
    UPDATE intents SET state = 'parked',
            reason = 'the create that it waits for was rejected or cancelled: retry that one, then this one; or cancel it'
        WHERE NEW.op = 'create' AND NEW.state IN ('rejected', 'cancelled') AND state = 'queued'
          AND position IN (SELECT position FROM outbox WHERE lane = '@' || NEW.id AND is_open = 1 AND is_follower = 1);
    -- This trigger does not fire for its own changes: bring the outbox in line with the followers that it parked.
    UPDATE outbox SET held = 0, followed_state = (SELECT state FROM intents WHERE position = outbox.position)
        WHERE NEW.op = 'create' AND NEW.state IN ('rejected', 'cancelled')
          AND lane = '@' || NEW.id AND is_open = 1 AND is_follower = 1;
    -- A retry is a new request: it has its own key and its full patience.
    UPDATE outbox SET key = NULL, tag = NULL, base = NULL, first_attempt_at = NULL, first_boot = NULL, first_boot_ms = NULL,
                      first_server_at = NULL, first_seq = NULL, met_server_error = 0, patience_from = NULL
        WHERE position = NEW.position AND NEW.state = 'queued' AND OLD.state IN ('rejected', 'parked');
    UPDATE intents SET settled_at = NULL, next_attempt_at = NULL, detail = NULL
        WHERE position = NEW.position AND NEW.state = 'queued' AND coalesce(settled_at, next_attempt_at, detail) IS NOT NULL;
    -- Settled by another program, as by a cancel in SQL: wipe its token.
    UPDATE intents SET body = json_set(body, '$.payment_details', '****')
        WHERE position = NEW.position AND NEW.state IN ('done', 'rejected', 'cancelled')
          AND CASE WHEN json_valid(body) THEN json_type(body, '$.payment_details') IS NOT NULL
                                          AND json_extract(body, '$.payment_details') <> '****' END;
    UPDATE intents SET settled_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
        WHERE position = NEW.position AND NEW.state IN ('done', 'rejected', 'cancelled') AND settled_at IS NULL;
    UPDATE meta SET following = NULL WHERE following = NEW.position;
END

-- trigger intents_stay
CREATE TRIGGER intents_stay BEFORE DELETE ON intents
BEGIN
    SELECT RAISE(ABORT, 'intents are never removed; `komoju-sync intent cancel` takes one back');
END

-- trigger intents_token_moved
CREATE TRIGGER intents_token_moved AFTER UPDATE OF body ON intents
WHEN NEW.body IS NOT OLD.body AND (instr(OLD.body, 'payment_details') > 0 OR instr(OLD.body, '\u') > 0)
BEGIN
    UPDATE meta SET left_over_tokens = left_over_tokens + 1,
                    wipe_since = coalesce(wipe_since, strftime('%Y-%m-%dT%H:%M:%fZ', 'now'));
END

-- trigger intents_transitions
CREATE TRIGGER intents_transitions BEFORE UPDATE ON intents
BEGIN
    SELECT RAISE(ABORT, 'an intent stays as it was dropped; `komoju-sync intent retry` takes a corrected body')
        WHERE NEW.id IS NOT OLD.id OR NEW.position IS NOT OLD.position OR NEW.op IS NOT OLD.op
           OR NEW.customer_id IS NOT OLD.customer_id OR NEW.not_before IS NOT OLD.not_before
           OR NEW.door IS NOT OLD.door OR NEW.created_at IS NOT OLD.created_at
           -- Its customer's erasure takes these away from a settled one.
           OR ((NEW.expect IS NOT OLD.expect OR NEW.submitted_by IS NOT OLD.submitted_by)
               AND NOT ((SELECT engine FROM meta) = 1 AND NEW.state IN ('done', 'rejected', 'cancelled')
                        AND (NEW.expect IS NULL OR NEW.expect IS OLD.expect)
                        AND (NEW.submitted_by IS NULL OR NEW.submitted_by IS OLD.submitted_by)))
           OR (NEW.body IS NOT OLD.body AND NOT CASE (SELECT engine FROM meta)
               WHEN 1 THEN (OLD.state IN ('rejected', 'parked') AND NEW.state = 'queued') OR NEW.state IN ('done', 'rejected', 'cancelled')
               ELSE NEW.state IN ('done', 'rejected', 'cancelled') AND CASE WHEN json_valid(OLD.body) THEN NEW.body IS json_set(OLD.body, '$.payment_details', '****') END
               END);
    SELECT RAISE(ABORT, 'an intent cannot go from this state to that one')
        WHERE NEW.state IS NOT OLD.state AND NOT CASE OLD.state
            WHEN 'queued' THEN NEW.state IN ('sending', 'parked', 'cancelled')
            WHEN 'sending' THEN NEW.state IN ('waiting', 'done', 'rejected', 'parked')
            WHEN 'waiting' THEN NEW.state IN ('sending', 'done', 'parked')
            WHEN 'rejected' THEN NEW.state = 'queued'
            WHEN 'parked' THEN NEW.state IN ('queued', 'waiting', 'cancelled')
            ELSE 0 END;
    SELECT RAISE(ABORT, 'it is being sent: wait for the answer, which moves it')
        WHERE NEW.state IS NOT OLD.state AND (SELECT engine FROM meta) = 0
          AND EXISTS (SELECT 1 FROM attempts WHERE intent_id = NEW.id AND finished_at IS NULL);
    SELECT RAISE(ABORT, 'its content was erased with its customer, so it cannot be tried again: drop another intent')
        WHERE NEW.state IS NOT OLD.state AND (SELECT erased FROM outbox WHERE position = NEW.position) = 1;
    SELECT RAISE(ABORT, 'a writer changes state and reason of an intent; the rest is set here')
        WHERE (SELECT engine FROM meta) = 0
          AND (NEW.attempts IS NOT OLD.attempts OR NEW.result_customer_id IS NOT OLD.result_customer_id
            OR NEW.change_seq IS NOT OLD.change_seq OR typeof(NEW.reason) NOT IN ('text', 'null')
            OR (NEW.next_attempt_at IS NOT OLD.next_attempt_at AND NEW.next_attempt_at IS NOT NULL)
            OR (NEW.detail IS NOT OLD.detail AND NEW.detail IS NOT NULL)
            OR (NEW.settled_at IS NOT OLD.settled_at AND NOT CASE NEW.state
                WHEN 'queued' THEN NEW.settled_at IS NULL
                ELSE NEW.state IN ('done', 'rejected', 'cancelled') AND OLD.settled_at IS NULL AND typeof(NEW.settled_at) = 'text' END));
    SELECT RAISE(ABORT, 'a byte of it may have left, or its token was wiped: `komoju-sync intent retry` knows how to go on')
        WHERE (SELECT engine FROM meta) = 0 AND NEW.state = 'queued' AND OLD.state IN ('rejected', 'parked')
          AND ((SELECT outcome_unknown FROM outbox WHERE position = NEW.position) = 1
            OR CASE WHEN json_valid(NEW.body) THEN json_extract(NEW.body, '$.payment_details') = '****' END);
END

-- trigger listed_protected_delete
CREATE TRIGGER listed_protected_delete BEFORE DELETE ON listed WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'listed: only komoju-sync writes this table'); END

-- trigger listed_protected_insert
CREATE TRIGGER listed_protected_insert BEFORE INSERT ON listed WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'listed: only komoju-sync writes this table'); END

-- trigger listed_protected_update
CREATE TRIGGER listed_protected_update BEFORE UPDATE ON listed WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'listed: only komoju-sync writes this table'); END

-- trigger meta_protected_delete
CREATE TRIGGER meta_protected_delete BEFORE DELETE ON meta WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'meta: only komoju-sync writes this table'); END

-- trigger meta_protected_following
CREATE TRIGGER meta_protected_following BEFORE UPDATE OF following ON meta
WHEN sqlite_source_id() <> 'komoju-sync' AND NOT CASE
    WHEN OLD.following IS NOT NULL THEN NEW.following IS NULL
    ELSE EXISTS (SELECT 1 FROM intents LEFT JOIN outbox USING (position)
        WHERE intents.position = NEW.following AND outbox.followed_state IS NOT intents.state) END
BEGIN SELECT RAISE(ABORT, 'meta: only komoju-sync writes this table'); END

-- trigger meta_protected_insert
CREATE TRIGGER meta_protected_insert BEFORE INSERT ON meta WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'meta: only komoju-sync writes this table'); END

-- trigger meta_protected_tokens
CREATE TRIGGER meta_protected_tokens BEFORE UPDATE OF left_over_tokens, wipe_since ON meta
WHEN sqlite_source_id() <> 'komoju-sync' AND (NEW.left_over_tokens IS NOT OLD.left_over_tokens + 1
    OR NEW.wipe_since IS NOT coalesce(OLD.wipe_since, strftime('%Y-%m-%dT%H:%M:%fZ', 'now')))
BEGIN SELECT RAISE(ABORT, 'meta: only komoju-sync writes this table'); END

-- trigger meta_protected_update
CREATE TRIGGER meta_protected_update BEFORE UPDATE OF one, log_id, schema_version, refused_since, throttled_until, live, deleted, is_backup, restored_at, outbound_enabled, engine,
    unscrubbed_erasure, spool_problem, scrubbed_tokens, wiped_tokens, scrubbed_erasure, scrubbed_wal, wipe_blocked, confirmed_at, confirmed_boot,
    confirmed_boot_ms, slowed, sweeps, vain_sweeps, above_limit_at, longest_lag_ms, lag_exceeded_at, list_report, page_ignored ON meta
WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'meta: only komoju-sync writes this table'); END

-- trigger mirror_protected_delete
CREATE TRIGGER mirror_protected_delete BEFORE DELETE ON mirror WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'mirror: only komoju-sync writes this table; to change a customer, INSERT INTO intents'); END

-- trigger mirror_protected_insert
CREATE TRIGGER mirror_protected_insert BEFORE INSERT ON mirror WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'mirror: only komoju-sync writes this table; to change a customer, INSERT INTO intents'); END

-- trigger mirror_protected_update
CREATE TRIGGER mirror_protected_update BEFORE UPDATE ON mirror WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'mirror: only komoju-sync writes this table; to change a customer, INSERT INTO intents'); END

-- trigger outbox_heads_move
CREATE TRIGGER outbox_heads_move AFTER UPDATE OF is_open, lane ON outbox WHEN NEW.is_open <> OLD.is_open OR NEW.lane <> OLD.lane
BEGIN
    UPDATE outbox SET is_head = 0 WHERE lane IN (OLD.lane, NEW.lane) AND is_head = 1;
    UPDATE outbox SET is_head = 1 WHERE position IN (
        (SELECT min(position) FROM outbox WHERE lane = OLD.lane AND is_open = 1),
        (SELECT min(position) FROM outbox WHERE lane = NEW.lane AND is_open = 1));
END

-- trigger outbox_protected_insert
CREATE TRIGGER outbox_protected_insert BEFORE INSERT ON outbox WHEN sqlite_source_id() <> 'komoju-sync' AND NOT coalesce(
    NEW.position = (SELECT following FROM meta) AND NEW.approved = 0 AND NEW.held = 0 AND NEW.outcome_unknown = 0 AND NEW.erased = 0
    AND coalesce(NEW.content, NEW.key, NEW.tag, NEW.base, NEW.first_attempt_at) IS NULL
    AND NEW.is_delete = (SELECT op = 'delete' FROM intents WHERE position = NEW.position), 0)
BEGIN SELECT RAISE(ABORT, 'outbox: only komoju-sync writes this table; write to the table intents, or use `komoju-sync intent`'); END

-- trigger outbox_protected_update
CREATE TRIGGER outbox_protected_update BEFORE UPDATE ON outbox WHEN sqlite_source_id() <> 'komoju-sync' AND NOT coalesce(
    NEW.position = OLD.position AND NEW.approved = OLD.approved AND NEW.is_delete = OLD.is_delete
    AND NEW.outcome_unknown = OLD.outcome_unknown AND NEW.erased = OLD.erased AND NEW.content IS OLD.content
    AND (NEW.held = OLD.held
        OR (NEW.held = 0 AND (SELECT state FROM intents WHERE position = OLD.position) NOT IN ('queued', 'waiting')))
    -- A retry takes the key away.
    AND ((NEW.key IS OLD.key AND NEW.tag IS OLD.tag)
        OR (NEW.key IS NULL AND NEW.tag IS NULL AND OLD.outcome_unknown = 0 AND OLD.position = (SELECT following FROM meta)
            AND (SELECT state FROM intents WHERE position = OLD.position) = 'queued'))
    AND EXISTS (SELECT 1 FROM meta JOIN intents ON intents.position = meta.following LEFT JOIN outbox AS own ON own.position = meta.following
        WHERE OLD.position = meta.following OR OLD.lane IN ('@' || intents.id, own.lane, intents.result_customer_id)), 0)
BEGIN SELECT RAISE(ABORT, 'outbox: only komoju-sync writes this table; write to the table intents, or use `komoju-sync intent`'); END

-- trigger outbox_stays
CREATE TRIGGER outbox_stays BEFORE DELETE ON outbox
BEGIN
    SELECT RAISE(ABORT, 'intents are never removed; `komoju-sync intent cancel` takes one back');
END

-- trigger pass_protected_delete
CREATE TRIGGER pass_protected_delete BEFORE DELETE ON pass WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'pass: only komoju-sync writes this table'); END

-- trigger pass_protected_insert
CREATE TRIGGER pass_protected_insert BEFORE INSERT ON pass WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'pass: only komoju-sync writes this table'); END

-- trigger pass_protected_update
CREATE TRIGGER pass_protected_update BEFORE UPDATE ON pass WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'pass: only komoju-sync writes this table'); END

-- trigger recall_protected_delete
CREATE TRIGGER recall_protected_delete BEFORE DELETE ON recall WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'recall: only komoju-sync writes this table'); END

-- trigger recall_protected_insert
CREATE TRIGGER recall_protected_insert BEFORE INSERT ON recall WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'recall: only komoju-sync writes this table'); END

-- trigger recall_protected_update
CREATE TRIGGER recall_protected_update BEFORE UPDATE ON recall WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'recall: only komoju-sync writes this table'); END

-- trigger recheck_protected_delete
CREATE TRIGGER recheck_protected_delete BEFORE DELETE ON recheck WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'recheck: only komoju-sync writes this table'); END

-- trigger recheck_protected_insert
CREATE TRIGGER recheck_protected_insert BEFORE INSERT ON recheck WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'recheck: only komoju-sync writes this table'); END

-- trigger recheck_protected_update
CREATE TRIGGER recheck_protected_update BEFORE UPDATE ON recheck WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'recheck: only komoju-sync writes this table'); END

-- trigger spool_file_protected_delete
CREATE TRIGGER spool_file_protected_delete BEFORE DELETE ON spool_file WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'spool_file: only komoju-sync writes this table'); END

-- trigger spool_file_protected_insert
CREATE TRIGGER spool_file_protected_insert BEFORE INSERT ON spool_file WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'spool_file: only komoju-sync writes this table'); END

-- trigger spool_file_protected_update
CREATE TRIGGER spool_file_protected_update BEFORE UPDATE ON spool_file WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'spool_file: only komoju-sync writes this table'); END

-- trigger spool_intent_protected_delete
CREATE TRIGGER spool_intent_protected_delete BEFORE DELETE ON spool_intent WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'spool_intent: only komoju-sync writes this table'); END

-- trigger spool_intent_protected_insert
CREATE TRIGGER spool_intent_protected_insert BEFORE INSERT ON spool_intent WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'spool_intent: only komoju-sync writes this table'); END

-- trigger spool_intent_protected_update
CREATE TRIGGER spool_intent_protected_update BEFORE UPDATE ON spool_intent WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'spool_intent: only komoju-sync writes this table'); END

-- trigger unlisted_protected_delete
CREATE TRIGGER unlisted_protected_delete BEFORE DELETE ON unlisted WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'unlisted: only komoju-sync writes this table'); END

-- trigger unlisted_protected_insert
CREATE TRIGGER unlisted_protected_insert BEFORE INSERT ON unlisted WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'unlisted: only komoju-sync writes this table'); END

-- trigger unlisted_protected_update
CREATE TRIGGER unlisted_protected_update BEFORE UPDATE ON unlisted WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'unlisted: only komoju-sync writes this table'); END

-- trigger unreadable_customer_protected_delete
CREATE TRIGGER unreadable_customer_protected_delete BEFORE DELETE ON unreadable_customer WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'unreadable_customer: only komoju-sync writes this table'); END

-- trigger unreadable_customer_protected_insert
CREATE TRIGGER unreadable_customer_protected_insert BEFORE INSERT ON unreadable_customer WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'unreadable_customer: only komoju-sync writes this table'); END

-- trigger unreadable_customer_protected_update
CREATE TRIGGER unreadable_customer_protected_update BEFORE UPDATE ON unreadable_customer WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'unreadable_customer: only komoju-sync writes this table'); END

-- view changes
CREATE VIEW changes AS
SELECT entry.seq, entry.customer_id, entry.kind, entry.observed_at, entry.origin, entry.pass_id, entry.intent_id,
       CASE WHEN entry.salt IS NULL OR entry.kind = 'erased' THEN NULL ELSE (
           SELECT json_group_object(name, json_object('from', json(old), 'to', json(new)))
           FROM (
               SELECT name, max(old) AS old, max(new) AS new, max(old_text) AS old_text, max(new_text) AS new_text
               FROM (
                   SELECT field.key AS name, CAST(NULL AS TEXT) AS new, CAST(NULL AS TEXT) AS new_text, CASE
                       WHEN field.type IN ('object', 'array') THEN CAST(field.value AS TEXT)
                       WHEN field.type IN ('true', 'false', 'null') THEN field.type
                       WHEN (field.type IN ('integer', 'real') OR instr(field.json, '\u0000') > 0)
                           AND field.key <> '' AND NOT (field.key GLOB '*["\]*') THEN CAST(field.json -> field.fullkey AS TEXT)
                       ELSE CAST(json_quote(field.value) AS TEXT) END AS old, CASE field.type WHEN 'text' THEN CAST(field.value AS TEXT) END AS old_text
                   FROM json_each(coalesce(entry.before, '{}')) AS field
                   UNION ALL
                   SELECT field.key, CASE
                       WHEN field.type IN ('object', 'array') THEN CAST(field.value AS TEXT)
                       WHEN field.type IN ('true', 'false', 'null') THEN field.type
                       WHEN (field.type IN ('integer', 'real') OR instr(field.json, '\u0000') > 0)
                           AND field.key <> '' AND NOT (field.key GLOB '*["\]*') THEN CAST(field.json -> field.fullkey AS TEXT)
                       ELSE CAST(json_quote(field.value) AS TEXT) END, CASE field.type WHEN 'text' THEN CAST(field.value AS TEXT) END,
                       CAST(NULL AS TEXT), CAST(NULL AS TEXT)
                   FROM json_each(coalesce(entry.after, '{}')) AS field)
               GROUP BY name)
           WHERE coalesce(old <> new, (old IS NULL) <> (new IS NULL)) OR coalesce(old_text <> new_text, false)) END AS diff,
       entry.before, entry.after, lower(hex(entry.digest)) AS digest, lower(hex(entry.chain)) AS chain
FROM (
    SELECT change_log.*, CASE WHEN change_log.kind = 'created' THEN NULL ELSE (
        SELECT earlier.after FROM change_log AS earlier
        WHERE earlier.customer_id = change_log.customer_id AND earlier.seq < change_log.seq
        ORDER BY earlier.seq DESC LIMIT 1) END AS before
    FROM change_log) AS entry

-- view customers
CREATE VIEW customers AS
SELECT id, email,
       nullif(body -> '$.source', 'null') AS source,
       body ->> '$.source.type' AS source_type,
       body ->> '$.source.brand' AS source_brand,
       body ->> '$.source.last_four_digits' AS source_last_four,
       body ->> '$.source.month' AS source_month,
       body ->> '$.source.year' AS source_year,
       nullif(body -> '$.metadata', 'null') AS metadata,
       body ->> '$.locale' AS locale,
       created_at, body, first_seen_at, changed_at, seq
FROM mirror
WHERE deleted_at IS NULL

-- view deleted_customers
CREATE VIEW deleted_customers AS
SELECT id, email,
       nullif(body -> '$.source', 'null') AS source,
       body ->> '$.source.type' AS source_type,
       body ->> '$.source.brand' AS source_brand,
       body ->> '$.source.last_four_digits' AS source_last_four,
       body ->> '$.source.month' AS source_month,
       body ->> '$.source.year' AS source_year,
       nullif(body -> '$.metadata', 'null') AS metadata,
       body ->> '$.locale' AS locale,
       created_at, body, first_seen_at, changed_at, seq, deleted_at
FROM mirror
WHERE deleted_at IS NOT NULL

-- view held_deletions
CREATE VIEW held_deletions AS
SELECT hold_id, customer_id, state, opened_at, decided_at, decided_by
FROM held_customer JOIN hold ON hold.id = held_customer.hold_id

-- view mirror_info
CREATE VIEW mirror_info AS
SELECT meta.log_id, meta.schema_version,
       (SELECT lower(substr(hex(fingerprint), 1, 16)) FROM account) AS account,
       whole.id AS last_sweep_id, whole.finished_at AS last_sweep_at,
       meta.live, meta.deleted,
       coalesce(head.seq, 0) AS head_seq,
       coalesce(lower(hex(head.chain)), '0000000000000000000000000000000000000000000000000000000000000000') AS head_chain
FROM meta
LEFT JOIN pass AS whole ON whole.id = (
    SELECT max(id) FROM pass WHERE kind = 'sweep' AND outcome IN ('complete', 'held'))
LEFT JOIN change_log AS head ON head.seq = (SELECT max(seq) FROM change_log)

-- view passes
CREATE VIEW passes AS
SELECT id, kind, started_at, finished_at, outcome, resumed, pages, requests, customers_seen, created, updated, deleted, restored,
       unreadable, unverified, error
FROM pass

-- view report_freshness
CREATE VIEW report_freshness AS
SELECT change_log.seq AS change_seq, change_log.customer_id, change_log.kind, change_log.observed_at, change_log.origin,
       change_event.event_at,
       round((julianday(change_log.observed_at) - julianday(change_event.event_at)) * 86400.0, 3) AS lag_s
FROM change_log
LEFT JOIN change_event ON change_event.seq = change_log.seq
WHERE change_log.seq > (SELECT counted_from FROM event_state)
  AND change_log.origin IN ('sweep', 'probe', 'event', 'lookup')
  AND change_log.kind <> 'erased'

-- view unreadable_customers
CREATE VIEW unreadable_customers AS
SELECT id, page, position, reason, first_seen_at, last_seen_at
FROM unreadable_customer

-- columns of changes: seq, customer_id, kind, observed_at, origin, pass_id, intent_id, diff, before, after, digest, chain
-- columns of customers: id, email, source, source_type, source_brand, source_last_four, source_month, source_year, metadata, locale, created_at, body, first_seen_at, changed_at, seq
-- columns of deleted_customers: id, email, source, source_type, source_brand, source_last_four, source_month, source_year, metadata, locale, created_at, body, first_seen_at, changed_at, seq, deleted_at
-- columns of held_deletions: hold_id, customer_id, state, opened_at, decided_at, decided_by
-- columns of mirror_info: log_id, schema_version, account, last_sweep_id, last_sweep_at, live, deleted, head_seq, head_chain
-- columns of passes: id, kind, started_at, finished_at, outcome, resumed, pages, requests, customers_seen, created, updated, deleted, restored, unreadable, unverified, error
-- columns of report_freshness: change_seq, customer_id, kind, observed_at, origin, event_at, lag_s
-- columns of unreadable_customers: id, page, position, reason, first_seen_at, last_seen_at
