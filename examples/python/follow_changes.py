#!/usr/bin/env python3
"""Print every change since the last run, one JSON object a line, and store how far that was.

Run:    python3 follow_changes.py /var/lib/komoju-sync/komoju.db cursor.json
        With --follow behind it, wait for further changes until Ctrl-C.
User:   a member of the group komoju-sync that may write cursor.json.
Needs:  Python 3.8 or later with SQLite 3.40 or later, standard library only.
Prints: {"start_over": LOG_ID} where the log is new to this cursor, else a change.

The cursor is (log_id, seq). After 'komoju-sync restore' the log has another log_id, and its numbers
mean other changes: forget what you built from the old log, and start over at 0.
"""

import json
import os
import pathlib
import sqlite3
import sys
import time

BATCH = 500
POLL_S = 2


def handle(change):
    """Replace this by what you do with a change. After a crash the last batch comes again."""
    print(json.dumps(change))


def read_batch(path, seq):
    """Return the log's log_id and head, and the changes after seq, all of the same moment."""
    # A connection for each batch: an open one would still show the old file after a restore.
    uri = pathlib.Path(path).resolve().as_uri() + "?mode=ro"
    connection = sqlite3.connect(uri, uri=True, timeout=5, isolation_level=None)
    connection.row_factory = sqlite3.Row
    try:
        connection.execute("BEGIN")
        info = connection.execute("SELECT log_id, head_seq FROM mirror_info").fetchone()
        rows = connection.execute(
            "SELECT seq, kind, customer_id, observed_at, origin, intent_id, diff, after"
            " FROM changes WHERE seq > ? ORDER BY seq LIMIT ?",
            (seq, BATCH),
        ).fetchall()
    finally:
        connection.close()
    return info["log_id"], info["head_seq"], [change_of(row) for row in rows]


def change_of(row):
    change = dict(row)
    for column in ("diff", "after"):
        # Null for some kinds, and where an erasure removed the content.
        change[column] = json.loads(row[column]) if row[column] is not None else None
    return change


def load(path):
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError:
        return {"log_id": None, "seq": 0}


def store(path, cursor):
    """Replace the cursor's file in one step, so that a crash leaves the old one or the new one."""
    with open(f"{path}.new", "w", encoding="utf-8") as file:
        json.dump(cursor, file)
        file.flush()
        os.fsync(file.fileno())
    os.rename(f"{path}.new", path)


def main():
    database, cursor_file = sys.argv[1:3]
    follow = sys.argv[3:] == ["--follow"]
    cursor = load(cursor_file)
    while True:
        log_id, head, changes = read_batch(database, cursor["seq"])
        if log_id != cursor["log_id"] or cursor["seq"] > head:
            handle({"start_over": log_id})
            cursor = {"log_id": log_id, "seq": 0}
            store(cursor_file, cursor)
            continue
        for change in changes:
            handle(change)
        if changes:
            sys.stdout.flush()
            cursor["seq"] = changes[-1]["seq"]
            store(cursor_file, cursor)
        elif follow:
            time.sleep(POLL_S)
        else:
            return


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
