-- Stricter SQL rules, protected tables, unreadable customers. Nothing here is newer than SQLite 3.40.
-- A released migration is never edited: a later one drops and re-creates triggers and views.

UPDATE meta SET schema_version = 3;

-- Columns and tables ---------------------------------------------------------------------------------------------------

-- Views ----------------------------------------------------------------------------------------------------------------

-- The SQL door: what a writer may insert and change ---------------------------------------------------------------------

-- Protected tables: only this program writes them -----------------------------------------------------------------------
