#!/usr/bin/env python3
"""Print every live customer of the mirror, one JSON object a line.

Run:    python3 read_mirror.py /var/lib/komoju-sync/komoju.db
User:   a member of the group komoju-sync; the service may run or be stopped.
Needs:  Python 3.8 or later with SQLite 3.40 or later, standard library only.
Exits:  0 fine; 1 no sweep is complete yet, so that customers may be missing.
"""

import json
import pathlib
import sqlite3
import sys


def connect(path):
    """Open the database for reading only: such a connection never writes and never checkpoints."""
    uri = pathlib.Path(path).resolve().as_uri() + "?mode=ro"
    connection = sqlite3.connect(uri, uri=True, timeout=5)
    connection.row_factory = sqlite3.Row
    return connection


def main():
    (database,) = sys.argv[1:]
    connection = connect(database)
    (last_sweep_at,) = connection.execute("SELECT last_sweep_at FROM mirror_info").fetchone()
    if last_sweep_at is None:
        sys.exit("no sweep is complete yet: see 'komoju-sync status'")
    # Read all rows before the first is used: an open read transaction keeps SQLite from emptying
    # the write-ahead log.
    rows = connection.execute(
        "SELECT id, email, source_brand, metadata, created_at, changed_at FROM customers ORDER BY id"
    ).fetchall()
    connection.close()
    for row in rows:
        customer = dict(row)
        customer["metadata"] = json.loads(row["metadata"] or "{}")
        print(json.dumps(customer))


if __name__ == "__main__":
    main()
