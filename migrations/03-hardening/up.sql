-- Stricter SQL rules, protected tables, unreadable customers. Nothing here is newer than SQLite 3.40.
-- A released migration is never edited: a later one drops and re-creates triggers and views.

UPDATE meta SET schema_version = 3;

-- Columns and tables ---------------------------------------------------------------------------------------------------

-- When the last attempt at a delete began: the boot of the machine, and the milliseconds since it (store/delete_limit.rs).
ALTER TABLE outbox ADD COLUMN sent_boot TEXT;
ALTER TABLE outbox ADD COLUMN sent_boot_ms INTEGER;
CREATE INDEX outbox_sent_deletes ON outbox (sent_boot, sent_boot_ms) WHERE sent_boot IS NOT NULL;

-- Views ----------------------------------------------------------------------------------------------------------------

-- The SQL door: what a writer may insert and change ---------------------------------------------------------------------

-- Protected tables: only this program writes them -----------------------------------------------------------------------
