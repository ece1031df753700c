-- What was learned of an API that is less exact than its documentation.

UPDATE meta SET schema_version = 4;

ALTER TABLE meta ADD COLUMN slowed TEXT;  -- how much the requests are slowed down, as JSON; null while they leave at the configured rate

DROP TRIGGER meta_protected_update;

-- A column that is added to meta belongs into this list.
CREATE TRIGGER meta_protected_update BEFORE UPDATE OF one, log_id, schema_version, refused_since, throttled_until, live, deleted, is_backup, restored_at, outbound_enabled, engine,
    unscrubbed_erasure, spool_problem, scrubbed_tokens, wiped_tokens, scrubbed_erasure, scrubbed_wal, wipe_blocked, confirmed_at, confirmed_boot,
    confirmed_boot_ms, slowed ON meta WHEN sqlite_source_id() <> 'komoju-sync'
BEGIN SELECT RAISE(ABORT, 'meta: only komoju-sync writes this table'); END;
