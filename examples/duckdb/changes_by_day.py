#!/usr/bin/env python3
"""Print how many changes of each kind the change log has for each day, as CSV.

Run:    python3 changes_by_day.py /var/lib/komoju-sync/komoju.db > changes.csv
User:   a member of the group komoju-sync; the service may run or be stopped.
Needs:  Python 3.11 or later; DuckDB 1.5 (pip install duckdb). DuckDB installs its extension
        'sqlite' from the network when it first attaches a SQLite file. Without a network:
        pip install duckdb-extension-sqlite-scanner.

DuckDB reads each view of docs/change-log.md and README.md. It spells some JSON numbers in another
way (1.50 as 1.5), so compare JSON as JSON.
"""

import csv
import importlib.util
import pathlib
import sys

import duckdb


def connect(path):
    """Attach the database for reading only, as 'mirror'."""
    connection = duckdb.connect()
    package = importlib.util.find_spec("duckdb_extension_sqlite_scanner")
    if package is not None:
        folder = pathlib.Path(package.submodule_search_locations[0])
        (extension,) = folder.rglob("sqlite_scanner.duckdb_extension")
        connection.execute(f"LOAD '{extension}'")
    quoted = path.replace("'", "''")
    connection.execute(f"ATTACH '{quoted}' AS mirror (TYPE sqlite, READ_ONLY)")
    return connection


def main():
    connection = connect(sys.argv[1])
    # Times are text in UTC, so their first ten characters are the day.
    rows = connection.execute(
        """
        SELECT observed_at[1:10] AS day, kind, count(*) AS changes
        FROM mirror.changes
        GROUP BY ALL ORDER BY ALL
        """
    ).fetchall()
    # The attached file is closed with the connection, and its read transaction ends.
    connection.close()
    table = csv.writer(sys.stdout, lineterminator="\n")
    table.writerow(["day", "kind", "changes"])
    table.writerows(rows)


if __name__ == "__main__":
    main()
