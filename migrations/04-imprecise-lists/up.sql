-- Lists that are imprecise, reads that lag, and a limiter that learns. Nothing here is newer than SQLite 3.40.

UPDATE meta SET schema_version = 4;

-- Columns and tables ---------------------------------------------------------------------------------------------------

ALTER TABLE meta ADD COLUMN slowed TEXT;                          -- the learned rate, as JSON (src/remote/pace.rs); null while not slowed
ALTER TABLE meta ADD COLUMN sweeps INTEGER NOT NULL DEFAULT 0;    -- how many sweeps have read the list to its end
ALTER TABLE meta ADD COLUMN vain_sweeps INTEGER NOT NULL DEFAULT 0;  -- of these in a row: their further rounds showed no new customer
ALTER TABLE meta ADD COLUMN above_limit_at TEXT;                  -- when more customers than the limit were not listed, and one was alive
ALTER TABLE meta ADD COLUMN longest_lag_ms INTEGER;               -- the longest lag of a read that was measured
ALTER TABLE meta ADD COLUMN lag_exceeded_at TEXT;                 -- when a read last showed a state older than consistency_s
ALTER TABLE meta ADD COLUMN list_report TEXT;                     -- what is imprecise about the list, as the last sweep saw it: a JSON array of texts
ALTER TABLE meta ADD COLUMN page_ignored INTEGER NOT NULL DEFAULT 0;  -- 1: page 2 of the last sweep repeated page 1

-- Live customers that a sweep did not list, and that answered when they were requested one by one.
CREATE TABLE unlisted (
    customer_id    TEXT PRIMARY KEY NOT NULL,
    since_sweep    INTEGER NOT NULL,  -- the first sweep (by meta.sweeps) that did not list it …
    verified_sweep INTEGER NOT NULL,  -- … and the last one in which it answered
    verified_at    TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Customers of which a read was not applied, because it may have been older than the log: each is requested again by itself.
CREATE TABLE recheck (
    customer_id TEXT PRIMARY KEY NOT NULL,
    due_at      TEXT NOT NULL,
    shown       BLOB                  -- a digest of what that read showed, where the log had replaced it
) STRICT, WITHOUT ROWID;
CREATE INDEX recheck_by_due ON recheck (due_at);

-- A sweep may end partial: SQLite cannot change a CHECK, so the table is made again.
DROP VIEW passes;
DROP VIEW mirror_info;
CREATE TABLE pass_04 (
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
) STRICT;
INSERT INTO pass_04 (id, kind, started_at, finished_at, outcome, resumed, pages, last_page, per_page, since_at, since_pages, requests,
        customers_seen, created, updated, deleted, restored, error, unreadable)
    SELECT id, kind, started_at, finished_at, outcome, resumed, pages, last_page, per_page, since_at, since_pages, requests,
        customers_seen, created, updated, deleted, restored, error, unreadable FROM pass;
DROP TABLE pass;
ALTER TABLE pass_04 RENAME TO pass;
CREATE INDEX pass_of_whole_list ON pass (id) WHERE kind = 'sweep' AND outcome IN ('complete', 'held');

-- Views ----------------------------------------------------------------------------------------------------------------

CREATE VIEW passes AS
SELECT id, kind, started_at, finished_at, outcome, resumed, pages, requests, customers_seen, created, updated, deleted, restored,
       unreadable, unverified, error
FROM pass;

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

-- Protection -----------------------------------------------------------------------------------------------------------

DROP TRIGGER meta_protected_update;

-- A column that is added to meta belongs into this list.
CREATE TRIGGER meta_protected_update BEFORE UPDATE OF one, log_id, schema_version, refused_since, throttled_until, live, deleted, is_backup, restored_at, outbound_enabled, engine,
    unscrubbed_erasure, spool_problem, scrubbed_tokens, wiped_tokens, scrubbed_erasure, scrubbed_wal, wipe_blocked, confirmed_at, confirmed_boot,
    confirmed_boot_ms, slowed, sweeps, vain_sweeps, above_limit_at, longest_lag_ms, lag_exceeded_at, list_report, page_ignored ON meta
WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'meta: only komoju-sync writes this table'); END;

CREATE TRIGGER pass_protected_insert BEFORE INSERT ON pass WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'pass: only komoju-sync writes this table'); END;

CREATE TRIGGER pass_protected_update BEFORE UPDATE ON pass WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'pass: only komoju-sync writes this table'); END;

CREATE TRIGGER pass_protected_delete BEFORE DELETE ON pass WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'pass: only komoju-sync writes this table'); END;

CREATE TRIGGER unlisted_protected_insert BEFORE INSERT ON unlisted WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'unlisted: only komoju-sync writes this table'); END;

CREATE TRIGGER unlisted_protected_update BEFORE UPDATE ON unlisted WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'unlisted: only komoju-sync writes this table'); END;

CREATE TRIGGER unlisted_protected_delete BEFORE DELETE ON unlisted WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'unlisted: only komoju-sync writes this table'); END;

CREATE TRIGGER recheck_protected_insert BEFORE INSERT ON recheck WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'recheck: only komoju-sync writes this table'); END;

CREATE TRIGGER recheck_protected_update BEFORE UPDATE ON recheck WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'recheck: only komoju-sync writes this table'); END;

CREATE TRIGGER recheck_protected_delete BEFORE DELETE ON recheck WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'recheck: only komoju-sync writes this table'); END;
