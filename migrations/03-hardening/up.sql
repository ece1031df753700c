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

-- Views ----------------------------------------------------------------------------------------------------------------

-- The SQL door: what a writer may insert and change ---------------------------------------------------------------------

-- Protected tables: only this program writes them -----------------------------------------------------------------------
