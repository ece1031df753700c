-- Stricter SQL rules, protected tables, unreadable customers. Nothing here is newer than SQLite 3.40.
-- A released migration is never edited: a later one drops and re-creates triggers and views.

UPDATE meta SET schema_version = 3;

-- Columns and tables ---------------------------------------------------------------------------------------------------

-- When the last attempt at a delete began: the boot of the machine, and the milliseconds since it (store/delete_limit.rs).
ALTER TABLE outbox ADD COLUMN sent_boot TEXT;
ALTER TABLE outbox ADD COLUMN sent_boot_ms INTEGER;
CREATE INDEX outbox_sent_deletes ON outbox (sent_boot, sent_boot_ms) WHERE sent_boot IS NOT NULL;
-- Which drop of a file was accepted, and how much of it: after a crash the rest of a file that grew since is told from it.
ALTER TABLE spool_file ADD COLUMN claim TEXT;
ALTER TABLE spool_file ADD COLUMN accepted_bytes INTEGER;
ALTER TABLE spool_file ADD COLUMN accepted_digest TEXT;  -- 12 digits, as in the ids that are made of the content
ALTER TABLE spool_intent ADD COLUMN is_repeat INTEGER NOT NULL DEFAULT 0;  -- it was accepted before this file
ALTER TABLE meta ADD COLUMN spool_problem TEXT;  -- why no file is taken from outbound.spool_dir; null while files are taken
-- What is left of settled tokens and erased data outside of the rows (src/store/wipe.rs). left_over_tokens counts, from here on, the
-- tokens that left their row; unscrubbed_erasure stays set until the WAL is clean, too.
ALTER TABLE meta ADD COLUMN scrubbed_tokens INTEGER NOT NULL DEFAULT 0;  -- left_over_tokens as of the last scrubbing of the pages …
ALTER TABLE meta ADD COLUMN wiped_tokens INTEGER NOT NULL DEFAULT 0;     -- … after which the WAL was emptied
ALTER TABLE meta ADD COLUMN scrubbed_erasure INTEGER;                    -- unscrubbed_erasure, once the pages are scrubbed
ALTER TABLE meta ADD COLUMN scrubbed_wal INTEGER;                        -- the salt that the WAL had then
ALTER TABLE meta ADD COLUMN wipe_since TEXT;                             -- since when something is left
ALTER TABLE meta ADD COLUMN wipe_blocked INTEGER NOT NULL DEFAULT 0;     -- 1 after two failed attempts in a row
-- Schema 2 did not find every copy: the first start scrubs the whole file.
UPDATE meta SET left_over_tokens = 1, wipe_since = strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
    WHERE left_over_tokens > 0 OR unscrubbed_erasure IS NOT NULL OR EXISTS (SELECT 1 FROM intents);
-- The wall clock may be wrong for a while. So the last confirmed time is kept for the next process, …
ALTER TABLE meta ADD COLUMN confirmed_at TEXT;           -- by the wall clock, when that was confirmed last
ALTER TABLE meta ADD COLUMN confirmed_boot TEXT;         -- the machine's boot that it was in …
ALTER TABLE meta ADD COLUMN confirmed_boot_ms INTEGER;   -- … and how long after it

-- … a wait is stored with its length, and the begin of park_after_h with the boot that it was in or was counted back to.
ALTER TABLE outbox ADD COLUMN wait_ms INTEGER;           -- how long the wait until next_attempt_at was when it was planned
ALTER TABLE outbox ADD COLUMN patience_boot TEXT;        -- the machine's boot in which patience_boot_ms counts …
ALTER TABLE outbox ADD COLUMN patience_boot_ms INTEGER;  -- … and how long after it patience_from was; less than 0 is before it

-- Views ----------------------------------------------------------------------------------------------------------------

-- DuckDB reads these through its SQLite ATTACH, with its own parser: no NOT GLOB, no IS NOT and no IS DISTINCT FROM between values.
--
-- "before" is what the entry before it left; a field's value is its JSON text, so that numbers stay digit for digit and texts whole.
-- SQLite's paths cannot name a field whose name is empty or holds a quote or a backslash: its value is spelled from what SQLite read,
-- where a text ends at a NUL. Another text after it is a difference all the same, where SQLite reads that far (3.40 does not).
DROP VIEW changes;

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
    FROM change_log) AS entry;
-- Customers that an answer showed in a form that cannot be mirrored. A row is removed when a complete sweep does not find it again.
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
) STRICT, WITHOUT ROWID;

ALTER TABLE pass ADD COLUMN unreadable INTEGER NOT NULL DEFAULT 0;

-- Fields that changed in many customers in the last complete sweep: perhaps they change on every read.
CREATE TABLE busy_field (
    field     TEXT PRIMARY KEY NOT NULL,
    customers INTEGER NOT NULL,               -- in how many customers it changed
    seen      INTEGER NOT NULL,               -- how many customers the sweep saw
    sweeps    INTEGER NOT NULL,               -- in how many complete sweeps in a row
    since     TEXT NOT NULL                   -- when the first of these sweeps ended
) STRICT, WITHOUT ROWID;

-- Views ----------------------------------------------------------------------------------------------------------------

-- Views of passes and unreadable customers.
DROP VIEW passes;

CREATE VIEW passes AS
SELECT id, kind, started_at, finished_at, outcome, resumed, pages, requests, customers_seen, created, updated, deleted, restored,
       unreadable, error
FROM pass;

CREATE VIEW unreadable_customers AS
SELECT id, page, position, reason, first_seen_at, last_seen_at
FROM unreadable_customer;

-- The SQL door: what a writer may insert and change ---------------------------------------------------------------------

-- As in 02, and stricter: ids, card numbers, texts that are UTF-8 and Unicode, keys that appear once. The same
-- rules, for the other doors, are in src/model/intent.rs; a test holds both to one table of cases.
DROP TRIGGER intents_door;

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
END;

-- A token leaves its row. A name with escapes may hide one.
DROP TRIGGER intents_token_moved;
CREATE TRIGGER intents_token_moved AFTER UPDATE OF body ON intents
WHEN NEW.body IS NOT OLD.body AND (instr(OLD.body, 'payment_details') > 0 OR instr(OLD.body, '\u') > 0)
BEGIN
    UPDATE meta SET left_over_tokens = left_over_tokens + 1,
                    wipe_since = coalesce(wipe_since, strftime('%Y-%m-%dT%H:%M:%fZ', 'now'));
END;

-- Protected tables: only this program writes them -----------------------------------------------------------------------

-- Everything but intents is written by komoju-sync alone; `tests/schema.rs` tries each table. Its own connections replace the built-in
-- function sqlite_source_id() by one that returns 'komoju-sync' (src/store/own.rs): nothing in the file says so, no statement can
-- claim it, and it costs a function call a row. BEFORE INSERT with ABORT also holds against OR REPLACE, OR IGNORE and UPSERT.
--
-- The triggers of the SQL door write to outbox and meta in another program's statement. They first set meta.following to the intent's
-- position, which only passes while that intent and its row in outbox differ: so within a statement on intents, and never between.
ALTER TABLE meta ADD COLUMN following INTEGER;  -- the intent whose row in outbox follows it just now, for another program
ALTER TABLE outbox ADD COLUMN followed_state TEXT;  -- the intent's state that this row was last brought in line with
UPDATE outbox SET followed_state = (SELECT state FROM intents WHERE intents.position = outbox.position);

DROP TRIGGER intents_accepted;
DROP TRIGGER intents_follow;
DROP TRIGGER change_log_appends;
DROP TRIGGER change_log_redacts;

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
END;

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
END;

CREATE TRIGGER change_log_appends BEFORE INSERT ON change_log
WHEN sqlite_source_id() <> 'komoju-sync' OR NEW.seq IS NOT (SELECT coalesce(max(seq), 0) + 1 FROM change_log)
BEGIN
    SELECT RAISE(ABORT, 'the change log is append-only: only komoju-sync adds an entry, at its end');
END;

CREATE TRIGGER change_log_redacts BEFORE UPDATE ON change_log
WHEN sqlite_source_id() <> 'komoju-sync'
    OR NOT (NEW.seq IS OLD.seq AND NEW.customer_id IS OLD.customer_id AND NEW.kind IS OLD.kind
    AND NEW.observed_at IS OLD.observed_at AND NEW.origin IS OLD.origin AND NEW.pass_id IS OLD.pass_id
    AND NEW.intent_id IS OLD.intent_id AND NEW.redacts IS OLD.redacts AND NEW.digest IS OLD.digest
    AND NEW.chain IS OLD.chain AND NEW.after IS NULL AND NEW.salt IS NULL)
BEGIN
    SELECT RAISE(ABORT, 'the change log is append-only: an entry is never changed, and only `komoju-sync erase` redacts it');
END;

CREATE TRIGGER meta_protected_insert BEFORE INSERT ON meta WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'meta: only komoju-sync writes this table'); END;

-- A column that is added to meta belongs into this list.
CREATE TRIGGER meta_protected_update BEFORE UPDATE OF one, log_id, schema_version, refused_since, throttled_until, live, deleted, is_backup, restored_at, outbound_enabled, engine,
    unscrubbed_erasure, spool_problem, scrubbed_tokens, wiped_tokens, scrubbed_erasure, scrubbed_wal, wipe_blocked, confirmed_at, confirmed_boot,
    confirmed_boot_ms ON meta WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'meta: only komoju-sync writes this table'); END;

-- Any statement that moved a token counts it, and notes since when one is left: the time is that of the statement.
CREATE TRIGGER meta_protected_tokens BEFORE UPDATE OF left_over_tokens, wipe_since ON meta
WHEN sqlite_source_id() <> 'komoju-sync' AND (NEW.left_over_tokens IS NOT OLD.left_over_tokens + 1
    OR NEW.wipe_since IS NOT coalesce(OLD.wipe_since, strftime('%Y-%m-%dT%H:%M:%fZ', 'now')))
BEGIN SELECT RAISE(ABORT, 'meta: only komoju-sync writes this table'); END;

CREATE TRIGGER meta_protected_following BEFORE UPDATE OF following ON meta
WHEN sqlite_source_id() <> 'komoju-sync' AND NOT CASE
    WHEN OLD.following IS NOT NULL THEN NEW.following IS NULL
    ELSE EXISTS (SELECT 1 FROM intents LEFT JOIN outbox USING (position)
        WHERE intents.position = NEW.following AND outbox.followed_state IS NOT intents.state) END
BEGIN SELECT RAISE(ABORT, 'meta: only komoju-sync writes this table'); END;

CREATE TRIGGER meta_protected_delete BEFORE DELETE ON meta WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'meta: only komoju-sync writes this table'); END;

CREATE TRIGGER account_protected_insert BEFORE INSERT ON account WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'account: only komoju-sync writes this table; `komoju-sync account accept` binds it to another account'); END;

CREATE TRIGGER account_protected_update BEFORE UPDATE ON account WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'account: only komoju-sync writes this table; `komoju-sync account accept` binds it to another account'); END;

CREATE TRIGGER account_protected_delete BEFORE DELETE ON account WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'account: only komoju-sync writes this table; `komoju-sync account accept` binds it to another account'); END;

CREATE TRIGGER pass_protected_insert BEFORE INSERT ON pass WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'pass: only komoju-sync writes this table'); END;

CREATE TRIGGER pass_protected_update BEFORE UPDATE ON pass WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'pass: only komoju-sync writes this table'); END;

CREATE TRIGGER pass_protected_delete BEFORE DELETE ON pass WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'pass: only komoju-sync writes this table'); END;

CREATE TRIGGER mirror_protected_insert BEFORE INSERT ON mirror WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'mirror: only komoju-sync writes this table; to change a customer, INSERT INTO intents'); END;

CREATE TRIGGER mirror_protected_update BEFORE UPDATE ON mirror WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'mirror: only komoju-sync writes this table; to change a customer, INSERT INTO intents'); END;

CREATE TRIGGER mirror_protected_delete BEFORE DELETE ON mirror WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'mirror: only komoju-sync writes this table; to change a customer, INSERT INTO intents'); END;

CREATE TRIGGER listed_protected_insert BEFORE INSERT ON listed WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'listed: only komoju-sync writes this table'); END;

CREATE TRIGGER listed_protected_update BEFORE UPDATE ON listed WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'listed: only komoju-sync writes this table'); END;

CREATE TRIGGER listed_protected_delete BEFORE DELETE ON listed WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'listed: only komoju-sync writes this table'); END;

CREATE TRIGGER hold_protected_insert BEFORE INSERT ON hold WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'hold: only komoju-sync writes this table; `komoju-sync deletions` decides about held deletions'); END;

CREATE TRIGGER hold_protected_update BEFORE UPDATE ON hold WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'hold: only komoju-sync writes this table; `komoju-sync deletions` decides about held deletions'); END;

CREATE TRIGGER hold_protected_delete BEFORE DELETE ON hold WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'hold: only komoju-sync writes this table; `komoju-sync deletions` decides about held deletions'); END;

CREATE TRIGGER held_customer_protected_insert BEFORE INSERT ON held_customer WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'held_customer: only komoju-sync writes this table; `komoju-sync deletions` decides about held deletions'); END;

CREATE TRIGGER held_customer_protected_update BEFORE UPDATE ON held_customer WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'held_customer: only komoju-sync writes this table; `komoju-sync deletions` decides about held deletions'); END;

CREATE TRIGGER held_customer_protected_delete BEFORE DELETE ON held_customer WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'held_customer: only komoju-sync writes this table; `komoju-sync deletions` decides about held deletions'); END;

-- Within a statement on intents another program's TEMP trigger also reaches the outbox. So it may write what the triggers above write,
-- and nothing else: the row of the intent, as new; and of the rows of that intent's lanes no approval, hold, key or tag.
CREATE TRIGGER outbox_protected_insert BEFORE INSERT ON outbox WHEN sqlite_source_id() <> 'komoju-sync' AND NOT coalesce(
    NEW.position = (SELECT following FROM meta) AND NEW.approved = 0 AND NEW.held = 0 AND NEW.outcome_unknown = 0 AND NEW.erased = 0
    AND coalesce(NEW.content, NEW.key, NEW.tag, NEW.base, NEW.first_attempt_at) IS NULL
    AND NEW.is_delete = (SELECT op = 'delete' FROM intents WHERE position = NEW.position), 0)
BEGIN SELECT RAISE(ABORT, 'outbox: only komoju-sync writes this table; write to the table intents, or use `komoju-sync intent`'); END;

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
BEGIN SELECT RAISE(ABORT, 'outbox: only komoju-sync writes this table; write to the table intents, or use `komoju-sync intent`'); END;

CREATE TRIGGER attempts_protected_insert BEFORE INSERT ON attempts WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'attempts: only komoju-sync writes this table'); END;

CREATE TRIGGER attempts_protected_update BEFORE UPDATE ON attempts WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'attempts: only komoju-sync writes this table'); END;

CREATE TRIGGER spool_file_protected_insert BEFORE INSERT ON spool_file WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'spool_file: only komoju-sync writes this table'); END;

CREATE TRIGGER spool_file_protected_update BEFORE UPDATE ON spool_file WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'spool_file: only komoju-sync writes this table'); END;

CREATE TRIGGER spool_file_protected_delete BEFORE DELETE ON spool_file WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'spool_file: only komoju-sync writes this table'); END;

CREATE TRIGGER spool_intent_protected_insert BEFORE INSERT ON spool_intent WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'spool_intent: only komoju-sync writes this table'); END;

CREATE TRIGGER spool_intent_protected_update BEFORE UPDATE ON spool_intent WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'spool_intent: only komoju-sync writes this table'); END;

CREATE TRIGGER spool_intent_protected_delete BEFORE DELETE ON spool_intent WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'spool_intent: only komoju-sync writes this table'); END;

CREATE TRIGGER alert_protected_insert BEFORE INSERT ON alert WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'alert: only komoju-sync writes this table'); END;

CREATE TRIGGER alert_protected_update BEFORE UPDATE ON alert WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'alert: only komoju-sync writes this table'); END;

CREATE TRIGGER alert_protected_delete BEFORE DELETE ON alert WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'alert: only komoju-sync writes this table'); END;

CREATE TRIGGER unreadable_customer_protected_insert BEFORE INSERT ON unreadable_customer WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'unreadable_customer: only komoju-sync writes this table'); END;

CREATE TRIGGER unreadable_customer_protected_update BEFORE UPDATE ON unreadable_customer WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'unreadable_customer: only komoju-sync writes this table'); END;

CREATE TRIGGER unreadable_customer_protected_delete BEFORE DELETE ON unreadable_customer WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'unreadable_customer: only komoju-sync writes this table'); END;

CREATE TRIGGER busy_field_protected_insert BEFORE INSERT ON busy_field WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'busy_field: only komoju-sync writes this table'); END;

CREATE TRIGGER busy_field_protected_update BEFORE UPDATE ON busy_field WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'busy_field: only komoju-sync writes this table'); END;

CREATE TRIGGER busy_field_protected_delete BEFORE DELETE ON busy_field WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'busy_field: only komoju-sync writes this table'); END;
