-- The outbox: what somebody wants changed at the remote, and what became of it. Nothing here is newer than SQLite 3.40.

ALTER TABLE meta ADD COLUMN outbound_enabled INTEGER NOT NULL DEFAULT 1;  -- outbound.enabled, as of the last start
ALTER TABLE meta ADD COLUMN left_over_tokens INTEGER NOT NULL DEFAULT 0;  -- where copies may be: 1 the WAL, 2 free space too
ALTER TABLE meta ADD COLUMN engine INTEGER NOT NULL DEFAULT 0;  -- 1 within this program's own changes of intents, and nowhere else
ALTER TABLE meta ADD COLUMN unscrubbed_erasure INTEGER;  -- some number while what was erased may still stand in free space
UPDATE meta SET schema_version = 2;

-- Everybody may insert; the trigger below judges. No row is ever removed, and of a row only what the engine owns changes.
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
);

CREATE INDEX intents_result ON intents (result_customer_id) WHERE result_customer_id IS NOT NULL;
CREATE INDEX intents_state ON intents (state);

-- What only the engine needs to know of an intent.
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
) STRICT;

CREATE INDEX outbox_open ON outbox (position) WHERE is_open = 1;
CREATE INDEX outbox_held ON outbox (position) WHERE held = 1;
CREATE INDEX outbox_lane ON outbox (lane, position) WHERE is_open = 1;
CREATE INDEX outbox_heads ON outbox (position) WHERE is_head = 1;
CREATE INDEX outbox_head_of ON outbox (lane) WHERE is_head = 1;
CREATE INDEX outbox_sending ON outbox (lane) WHERE is_sending = 1;
CREATE INDEX outbox_deletes ON outbox (position) WHERE is_delete = 1 AND is_open = 1;
CREATE INDEX outbox_followers ON outbox (position) WHERE is_follower = 1 AND is_open = 1;

CREATE TABLE attempts (
    intent_id   TEXT NOT NULL,
    n           INTEGER NOT NULL,
    started_at  TEXT NOT NULL,
    finished_at TEXT,
    status      INTEGER,                     -- the HTTP status; null where no answer came
    outcome     TEXT,                        -- the state that it led to; null while it runs
    error       TEXT,
    PRIMARY KEY (intent_id, n)
) STRICT, WITHOUT ROWID;

-- Files that were taken from the spool directory, for their receipts. A name is used again when another file comes under it.
CREATE TABLE spool_file (
    name       TEXT PRIMARY KEY,
    taken_at   TEXT NOT NULL,
    is_settled INTEGER NOT NULL DEFAULT 0  -- all its intents are, and the receipt says so
) STRICT, WITHOUT ROWID;

CREATE TABLE spool_intent (
    name      TEXT NOT NULL REFERENCES spool_file (name) ON DELETE CASCADE,
    line      INTEGER NOT NULL,
    intent_id TEXT NOT NULL,
    PRIMARY KEY (name, line)
) STRICT, WITHOUT ROWID;

-- What stands and was, or is to be, told by alerts.command: a row is there from when it was noticed until it has cleared.
CREATE TABLE alert (
    kind       TEXT NOT NULL,
    thing      TEXT NOT NULL,              -- which hold, which intent, since when; empty where there can be one only
    noticed_at TEXT NOT NULL,
    told_at    TEXT,                       -- null: not yet
    PRIMARY KEY (kind, thing)
) STRICT, WITHOUT ROWID;

-- The door. Each rule is one sentence that names the field. BEFORE INSERT with ABORT also holds against OR REPLACE, OR IGNORE and
-- UPSERT. The same rules, for the other doors, are in src/model/intent.rs; a test holds both to one table of cases.
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
           OR length(NEW.id) <> length(CAST(NEW.id AS TEXT)) OR instr(CAST(NEW.id AS BLOB), x'00') > 0
           OR NEW.id GLOB '*[' || char(1) || '-' || char(31) || char(127) || '-' || char(159) || ']*';
    -- Character by character: each must be what its code point is written as. No reader of ours could take anything else.
    SELECT RAISE(ABORT, 'id: must be UTF-8')
        WHERE NEW.id GLOB '*[^ -~]*' AND EXISTS (
            SELECT 1 FROM json_each('[' || rtrim(replace(hex(zeroblob(length(NEW.id))), '00', '0,'), ',') || ']') AS place
            WHERE CAST(char(unicode(substr(NEW.id, place.key + 1, 1))) AS BLOB)
                  <> CAST(substr(NEW.id, place.key + 1, 1) AS BLOB));
    SELECT RAISE(ABORT, 'id: was used before') WHERE EXISTS (SELECT 1 FROM intents WHERE id = NEW.id);

    SELECT RAISE(ABORT, 'customer_id: cannot be given with a create') WHERE NEW.op = 'create' AND NEW.customer_id IS NOT NULL;
    SELECT RAISE(ABORT, 'customer_id: must be given') WHERE NEW.op <> 'create' AND NEW.customer_id IS NULL;
    SELECT RAISE(ABORT, 'customer_id: must have 1 to 1024 bytes without NUL, and be neither "." nor ".."')
        WHERE NEW.customer_id IS NOT NULL AND (typeof(NEW.customer_id) <> 'text'
           OR length(CAST(NEW.customer_id AS BLOB)) NOT BETWEEN 1 AND 1024 OR instr(CAST(NEW.customer_id AS BLOB), x'00') > 0
           OR NEW.customer_id IN ('.', '..'));
    SELECT RAISE(ABORT, 'customer_id: must be UTF-8')
        WHERE NEW.customer_id GLOB '*[^ -~]*' AND EXISTS (
            SELECT 1 FROM json_each('[' || rtrim(replace(hex(zeroblob(length(NEW.customer_id))), '00', '0,'), ',') || ']') AS place
            WHERE CAST(char(unicode(substr(NEW.customer_id, place.key + 1, 1))) AS BLOB)
                  <> CAST(substr(NEW.customer_id, place.key + 1, 1) AS BLOB));
    SELECT RAISE(ABORT, 'customer_id: must be @ and the id of a create that was accepted before')
        WHERE NEW.customer_id GLOB '@*'
          AND NOT EXISTS (SELECT 1 FROM intents WHERE id = substr(NEW.customer_id, 2) AND op = 'create');

    SELECT RAISE(ABORT, 'body: must be a JSON object')
        WHERE NEW.body IS NOT NULL AND (typeof(NEW.body) <> 'text' OR NOT json_valid(NEW.body));
    SELECT RAISE(ABORT, 'body: must be a JSON object') WHERE NEW.body IS NOT NULL AND json_type(NEW.body) IS NOT 'object';
    SELECT RAISE(ABORT, 'body: cannot be given with a delete') WHERE NEW.op = 'delete' AND NEW.body IS NOT NULL;
    SELECT RAISE(ABORT, 'body: a field is named twice')
        WHERE (SELECT count(*) > count(DISTINCT key) FROM json_each(NEW.body));
    SELECT RAISE(ABORT, 'body: an update must change something')
        WHERE NEW.op = 'update' AND NOT EXISTS (SELECT 1 FROM json_each(coalesce(NEW.body, '{}')));
    SELECT RAISE(ABORT, 'body: known fields are currency, email, metadata and payment_details')
        WHERE EXISTS (SELECT 1 FROM json_each(NEW.body) WHERE key NOT IN ('currency', 'email', 'metadata', 'payment_details'));
    SELECT RAISE(ABORT, 'body.email: must be a text or null')
        WHERE EXISTS (SELECT 1 FROM json_each(NEW.body) WHERE key = 'email' AND type NOT IN ('text', 'null'));
    SELECT RAISE(ABORT, 'body.currency: must be a text')
        WHERE EXISTS (SELECT 1 FROM json_each(NEW.body) WHERE key = 'currency' AND type <> 'text');
    SELECT RAISE(ABORT, 'body.payment_details: must be a payment token, a text; card numbers never enter this system')
        WHERE EXISTS (SELECT 1 FROM json_each(NEW.body) WHERE key = 'payment_details' AND type <> 'text');
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
END;

CREATE TRIGGER intents_accepted AFTER INSERT ON intents
BEGIN
    SELECT RAISE(ABORT, 'a writer sets op, customer_id, body, id, expect, not_before and submitted_by; the rest is set here')
        WHERE NEW.position IS NOT 1 + (SELECT coalesce(max(position), 0) FROM intents WHERE position < NEW.position)
           OR EXISTS (SELECT 1 FROM intents WHERE position > NEW.position);
    INSERT INTO outbox (position, lane, is_delete) VALUES (NEW.position, CASE
        WHEN NEW.op = 'create' THEN '@' || NEW.id
        -- The customer that a create made already has a lane of its own.
        ELSE coalesce((SELECT result_customer_id FROM intents WHERE id = substr(NEW.customer_id, 2) AND NEW.customer_id GLOB '@*'),
                      NEW.customer_id) END, NEW.op = 'delete');
    UPDATE outbox SET is_follower = NEW.op <> 'create' AND NEW.customer_id GLOB '@*' AND lane = NEW.customer_id,
                      is_head = NOT EXISTS (SELECT 1 FROM outbox AS ahead
                          WHERE ahead.lane = outbox.lane AND ahead.position < NEW.position AND ahead.is_open = 1)
        WHERE position = NEW.position;
END;

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
END;

CREATE TRIGGER intents_follow AFTER UPDATE OF state ON intents
BEGIN
    UPDATE outbox SET is_open = NEW.state IN ('queued', 'sending', 'waiting', 'parked'), is_sending = NEW.state = 'sending',
                      held = held AND NEW.state IN ('queued', 'waiting'),
                      base = CASE WHEN NEW.state NOT IN ('done', 'rejected', 'cancelled') THEN base END
        WHERE position = NEW.position;
    -- Whoever waits for this create goes on in the lane of the customer that it made, …
    UPDATE outbox SET lane = NEW.result_customer_id, is_follower = 0
        WHERE NEW.op = 'create' AND NEW.state = 'done' AND NEW.result_customer_id IS NOT NULL AND lane = '@' || NEW.id AND is_open = 1;
    -- … or waits for a person, where there will be none.
    UPDATE intents SET state = 'parked',
            reason = 'the create that it waits for was rejected or cancelled: retry that one, then this one; or cancel it'
        WHERE NEW.op = 'create' AND NEW.state IN ('rejected', 'cancelled') AND state = 'queued'
          AND position IN (SELECT position FROM outbox WHERE lane = '@' || NEW.id AND is_open = 1 AND is_follower = 1);
    -- A trigger does not fire for what it changes itself: those who park by this one wait for no approval any more.
    UPDATE outbox SET held = 0
        WHERE NEW.op = 'create' AND NEW.state IN ('rejected', 'cancelled') AND held = 1
          AND lane = '@' || NEW.id AND is_open = 1 AND is_follower = 1;
    -- What is tried again is a new request: with a key of its own, and all its patience.
    UPDATE outbox SET key = NULL, tag = NULL, base = NULL, first_attempt_at = NULL, first_boot = NULL, first_boot_ms = NULL,
                      first_server_at = NULL, first_seq = NULL, met_server_error = 0, patience_from = NULL
        WHERE position = NEW.position AND NEW.state = 'queued' AND OLD.state IN ('rejected', 'parked');
    UPDATE intents SET settled_at = NULL, next_attempt_at = NULL, detail = NULL
        WHERE position = NEW.position AND NEW.state = 'queued' AND coalesce(settled_at, next_attempt_at, detail) IS NOT NULL;
    -- Settled by another program (a cancel in SQL): the token is of no more use.
    UPDATE intents SET body = json_set(body, '$.payment_details', '****')
        WHERE position = NEW.position AND NEW.state IN ('done', 'rejected', 'cancelled')
          AND CASE WHEN json_valid(body) THEN json_type(body, '$.payment_details') IS NOT NULL
                                          AND json_extract(body, '$.payment_details') <> '****' END;
    UPDATE intents SET settled_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
        WHERE position = NEW.position AND NEW.state IN ('done', 'rejected', 'cancelled') AND settled_at IS NULL;
END;

CREATE TRIGGER outbox_heads_move AFTER UPDATE OF is_open, lane ON outbox WHEN NEW.is_open <> OLD.is_open OR NEW.lane <> OLD.lane
BEGIN
    UPDATE outbox SET is_head = 0 WHERE lane IN (OLD.lane, NEW.lane) AND is_head = 1;
    UPDATE outbox SET is_head = 1 WHERE position IN (
        (SELECT min(position) FROM outbox WHERE lane = OLD.lane AND is_open = 1),
        (SELECT min(position) FROM outbox WHERE lane = NEW.lane AND is_open = 1));
END;

-- A writer with secure_delete off leaves the old row, and so the token, in free space. This program, whose own connections overwrite
-- it, sets the mark back in the same transaction.
CREATE TRIGGER intents_token_moved AFTER UPDATE ON intents WHEN instr(OLD.body, 'payment_details') > 0
BEGIN
    UPDATE meta SET left_over_tokens = 2;
END;

CREATE TRIGGER intents_stay BEFORE DELETE ON intents
BEGIN
    SELECT RAISE(ABORT, 'intents are never removed; `komoju-sync intent cancel` takes one back');
END;

CREATE TRIGGER attempts_stay BEFORE DELETE ON attempts
BEGIN
    SELECT RAISE(ABORT, 'the journal of attempts is never shortened');
END;

CREATE TRIGGER outbox_stays BEFORE DELETE ON outbox
BEGIN
    SELECT RAISE(ABORT, 'intents are never removed; `komoju-sync intent cancel` takes one back');
END;
