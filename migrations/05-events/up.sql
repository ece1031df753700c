-- Events and webhooks: hints that name a customer to request, and how many changes they reported.
-- Nothing here is newer than SQLite 3.40.

UPDATE meta SET schema_version = 5;

-- Tables ------------------------------------------------------------------------------------------

-- Events that were read in the last 24 hours, so that a repeat is recognized. Only the id of the
-- customer is kept.
CREATE TABLE event (
    id          TEXT PRIMARY KEY NOT NULL,  -- the event's id at KOMOJU
    customer_id TEXT,                       -- null where the event names no customer
    event_at    TEXT NOT NULL,              -- when it happened, by the clock of this machine
    seen_at     TEXT NOT NULL,              -- when it was read or received first
    is_open     INTEGER NOT NULL            -- 1 until its change is found, or its customer was read and had not changed
) STRICT, WITHOUT ROWID;
CREATE INDEX event_by_customer ON event (customer_id) WHERE is_open = 1;
CREATE INDEX event_by_seen ON event (seen_at);

-- Customers that an event names: each is requested by itself.
CREATE TABLE hint (
    customer_id  TEXT PRIMARY KEY NOT NULL,
    first_at     TEXT NOT NULL,             -- when the first open hint of it arrived
    due_at       TEXT,                      -- when it is requested; null once it is answered
    requested_at TEXT,                      -- when it was requested last
    is_second    INTEGER NOT NULL,          -- 1 where the request at due_at repeats one that showed nothing new
    hints        INTEGER NOT NULL           -- rises with each hint, so that one during the request is noticed
) STRICT, WITHOUT ROWID;
CREATE INDEX hint_by_due ON hint (due_at) WHERE due_at IS NOT NULL;

-- One row: how events are read.
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
) STRICT;
INSERT INTO event_state (one) VALUES (1);

-- The event that reported a change; the earliest where there are several.
CREATE TABLE change_event (
    seq      INTEGER PRIMARY KEY,           -- the change
    event_at TEXT NOT NULL,                 -- when the event happened, by the clock of this machine
    seen_at  TEXT NOT NULL                  -- when the event was read or received
) STRICT;

-- How many changes were found on a day (UTC), and how many of them an event reported. Our own
-- pushes are not counted.
CREATE TABLE recall (
    day      TEXT PRIMARY KEY NOT NULL,
    changes  INTEGER NOT NULL,
    reported INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Our own pushes in the change log: `status` counts the newest ones.
CREATE INDEX change_log_by_intent ON change_log (seq) WHERE origin = 'intent';

-- Views -------------------------------------------------------------------------------------------

-- Each change that was found at KOMOJU since events are counted. event_at is null where no event
-- reported it.
CREATE VIEW report_freshness AS
SELECT change_log.seq AS change_seq, change_log.customer_id, change_log.kind, change_log.observed_at, change_log.origin,
       change_event.event_at,
       round((julianday(change_log.observed_at) - julianday(change_event.event_at)) * 86400.0, 3) AS lag_s
FROM change_log
LEFT JOIN change_event ON change_event.seq = change_log.seq
WHERE change_log.seq > (SELECT counted_from FROM event_state)
  AND change_log.origin IN ('sweep', 'probe', 'event', 'lookup')
  AND change_log.kind <> 'erased';

-- Protection --------------------------------------------------------------------------------------

CREATE TRIGGER event_protected_insert BEFORE INSERT ON event WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'event: only komoju-sync writes this table'); END;

CREATE TRIGGER event_protected_update BEFORE UPDATE ON event WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'event: only komoju-sync writes this table'); END;

CREATE TRIGGER event_protected_delete BEFORE DELETE ON event WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'event: only komoju-sync writes this table'); END;

CREATE TRIGGER hint_protected_insert BEFORE INSERT ON hint WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'hint: only komoju-sync writes this table'); END;

CREATE TRIGGER hint_protected_update BEFORE UPDATE ON hint WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'hint: only komoju-sync writes this table'); END;

CREATE TRIGGER hint_protected_delete BEFORE DELETE ON hint WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'hint: only komoju-sync writes this table'); END;

CREATE TRIGGER event_state_protected_insert BEFORE INSERT ON event_state WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'event_state: only komoju-sync writes this table'); END;

CREATE TRIGGER event_state_protected_update BEFORE UPDATE ON event_state WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'event_state: only komoju-sync writes this table'); END;

CREATE TRIGGER event_state_protected_delete BEFORE DELETE ON event_state WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'event_state: only komoju-sync writes this table'); END;

CREATE TRIGGER change_event_protected_insert BEFORE INSERT ON change_event WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'change_event: only komoju-sync writes this table'); END;

CREATE TRIGGER change_event_protected_update BEFORE UPDATE ON change_event WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'change_event: only komoju-sync writes this table'); END;

CREATE TRIGGER change_event_protected_delete BEFORE DELETE ON change_event WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'change_event: only komoju-sync writes this table'); END;

CREATE TRIGGER recall_protected_insert BEFORE INSERT ON recall WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'recall: only komoju-sync writes this table'); END;

CREATE TRIGGER recall_protected_update BEFORE UPDATE ON recall WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'recall: only komoju-sync writes this table'); END;

CREATE TRIGGER recall_protected_delete BEFORE DELETE ON recall WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'recall: only komoju-sync writes this table'); END;
