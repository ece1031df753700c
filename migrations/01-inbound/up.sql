-- What komoju-sync keeps. Tables are its own; the views at the end are what everybody else may rely on.
-- Times are RFC 3339 UTC text with milliseconds. JSON is text. Nothing here is newer than SQLite 3.40.

-- One row: what is true of the whole database.
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
) STRICT;

INSERT INTO meta (one, log_id, schema_version) VALUES (1, lower(hex(randomblob(16))), 1);

-- One row: whose customers these are, as a salted fingerprint of the key that reads them.
CREATE TABLE account (
    one         INTEGER PRIMARY KEY CHECK (one = 1),
    salt        BLOB NOT NULL,
    fingerprint BLOB NOT NULL,
    bound_at    TEXT NOT NULL,
    candidate   BLOB,                      -- another key, to which none of the known customers answered
    stopped_at  TEXT,                      -- since when everything waits because of it
    CHECK ((candidate IS NULL) = (stopped_at IS NULL))
) STRICT;

-- One row a pass; "finished_at" and "outcome" are null while it runs.
CREATE TABLE pass (
    id             INTEGER PRIMARY KEY,
    kind           TEXT NOT NULL CHECK (kind IN ('sweep', 'probe')),
    started_at     TEXT NOT NULL,
    finished_at    TEXT,
    outcome        TEXT CHECK (outcome IN ('complete', 'interrupted', 'failed', 'held')),
    resumed        INTEGER NOT NULL DEFAULT 0,
    pages          INTEGER NOT NULL DEFAULT 0,  -- how many are applied, from the first one on without a gap
    last_page      INTEGER NOT NULL DEFAULT 0,  -- how many pages the list has, by its newest answer
    per_page       INTEGER NOT NULL DEFAULT 0,  -- how many customers a page of this pass holds
    since_at       TEXT,                        -- when the process that works on it began with it …
    since_pages    INTEGER NOT NULL DEFAULT 0,  -- … and how many pages were applied by then
    requests       INTEGER NOT NULL DEFAULT 0,
    customers_seen INTEGER NOT NULL DEFAULT 0,
    created        INTEGER NOT NULL DEFAULT 0,
    updated        INTEGER NOT NULL DEFAULT 0,
    deleted        INTEGER NOT NULL DEFAULT 0,
    restored       INTEGER NOT NULL DEFAULT 0,
    error          TEXT,
    CHECK ((finished_at IS NULL) = (outcome IS NULL))
) STRICT;

-- The last sweep that read everything is looked for at each start and by every "status".
CREATE INDEX pass_of_whole_list ON pass (id) WHERE kind = 'sweep' AND outcome IN ('complete', 'held');

-- The change log: the source of truth. Append-only by the triggers below.
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
) STRICT;

-- Two more indexes, change_log_by_customer and mirror_by_email, are made when the first sweep is complete (store/indexes.rs): ids
-- and emails come in no order, and keeping their indexes while the first customers come in takes longer than everything else.

-- The mirror: for each customer, what the log folds to. It can be rebuilt from the log at any time.
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
) STRICT;

-- With deleted_at, though it is always null here: so what counts live customers need not look at them.
CREATE INDEX mirror_by_created_at ON mirror (created_at, deleted_at) WHERE deleted_at IS NULL;
CREATE INDEX mirror_by_deleted_at ON mirror (deleted_at) WHERE deleted_at IS NOT NULL;

-- By what a listed customer is recognised: the fingerprint of its text, as a list last showed it and as it was compared with the
-- mirror. A row is there only while that comparison holds: any change of the customer takes it away. Narrow, and in the order of
-- the mirror's rows, which is about the order of the list: a page of the list lies on a page or two of this table.
CREATE TABLE listed (
    row         INTEGER PRIMARY KEY,                             -- the mirror's
    fingerprint BLOB NOT NULL,
    source      INTEGER NOT NULL CHECK (source BETWEEN 0 AND 2)  -- shown, absent, carried on
) STRICT;

-- Deletions that wait for a person, and what became of them.
CREATE TABLE hold (
    id         INTEGER PRIMARY KEY,
    pass_id    INTEGER NOT NULL,
    opened_at  TEXT NOT NULL,
    because    TEXT NOT NULL CHECK (because IN ('too_many', 'unproven', 'restored')),
    decided_at TEXT,
    decided_by TEXT
) STRICT;

CREATE TABLE held_customer (
    hold_id     INTEGER NOT NULL REFERENCES hold (id),
    customer_id TEXT NOT NULL,
    state       TEXT NOT NULL CHECK (state IN ('held', 'approved', 'rejected', 'superseded', 'deleted', 'alive', 'seen')),
    PRIMARY KEY (hold_id, customer_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX held_customer_by_state ON held_customer (state, customer_id);

-- Append-only, in words. BEFORE INSERT also stops INSERT OR REPLACE, for which no delete trigger fires.
CREATE TRIGGER change_log_appends BEFORE INSERT ON change_log
WHEN NEW.seq IS NOT (SELECT coalesce(max(seq), 0) + 1 FROM change_log)
BEGIN
    SELECT RAISE(ABORT, 'the change log is append-only: an entry can only be added at its end');
END;

CREATE TRIGGER change_log_redacts BEFORE UPDATE ON change_log
WHEN NOT (NEW.seq IS OLD.seq AND NEW.customer_id IS OLD.customer_id AND NEW.kind IS OLD.kind
    AND NEW.observed_at IS OLD.observed_at AND NEW.origin IS OLD.origin AND NEW.pass_id IS OLD.pass_id
    AND NEW.intent_id IS OLD.intent_id AND NEW.redacts IS OLD.redacts AND NEW.digest IS OLD.digest
    AND NEW.chain IS OLD.chain AND NEW.after IS NULL AND NEW.salt IS NULL)
BEGIN
    SELECT RAISE(ABORT, 'the change log is append-only: an entry can be redacted, never changed');
END;

CREATE TRIGGER change_log_keeps BEFORE DELETE ON change_log
BEGIN
    SELECT RAISE(ABORT, 'the change log is append-only: no entry is ever removed');
END;

-- For readers ---------------------------------------------------------------------------------------------------------

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
WHERE deleted_at IS NULL;

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
WHERE deleted_at IS NOT NULL;

-- "before" is what the entry before it left; a field's value is its JSON text, so that numbers stay digit for digit (but
-- for a field whose very name holds a quote or a backslash, which SQLite's paths cannot name).
CREATE VIEW changes AS
SELECT entry.seq, entry.customer_id, entry.kind, entry.observed_at, entry.origin, entry.pass_id, entry.intent_id,
       CASE WHEN entry.salt IS NULL OR entry.kind = 'erased' THEN NULL ELSE (
           SELECT json_group_object(name, json_object('from', json(old), 'to', json(new)))
           FROM (
               SELECT name, max(old) AS old, max(new) AS new
               FROM (
                   SELECT field.key AS name, NULL AS new, CASE
                       WHEN field.type IN ('object', 'array') THEN field.value
                       WHEN field.type IN ('integer', 'real') AND field.key NOT GLOB '*["\]*' THEN entry.before -> field.fullkey
                       WHEN field.type IN ('true', 'false', 'null') THEN field.type
                       ELSE json_quote(field.value) END AS old
                   FROM json_each(coalesce(entry.before, '{}')) AS field
                   UNION ALL
                   SELECT field.key, CASE
                       WHEN field.type IN ('object', 'array') THEN field.value
                       WHEN field.type IN ('integer', 'real') AND field.key NOT GLOB '*["\]*' THEN entry.after -> field.fullkey
                       WHEN field.type IN ('true', 'false', 'null') THEN field.type
                       ELSE json_quote(field.value) END, NULL
                   FROM json_each(coalesce(entry.after, '{}')) AS field)
               GROUP BY name)
           WHERE old IS NOT new) END AS diff,
       entry.before, entry.after, lower(hex(entry.digest)) AS digest, lower(hex(entry.chain)) AS chain
FROM (
    SELECT change_log.*, CASE WHEN change_log.kind = 'created' THEN NULL ELSE (
        SELECT earlier.after FROM change_log AS earlier
        WHERE earlier.customer_id = change_log.customer_id AND earlier.seq < change_log.seq
        ORDER BY earlier.seq DESC LIMIT 1) END AS before
    FROM change_log) AS entry;

CREATE VIEW passes AS
SELECT id, kind, started_at, finished_at, outcome, resumed, pages, requests, customers_seen, created, updated, deleted, restored,
       error
FROM pass;

CREATE VIEW held_deletions AS
SELECT hold_id, customer_id, state, opened_at, decided_at, decided_by
FROM held_customer JOIN hold ON hold.id = held_customer.hold_id;

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
LEFT JOIN change_log AS head ON head.seq = (SELECT max(seq) FROM change_log);
