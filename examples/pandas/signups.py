#!/usr/bin/env python3
"""Print how many live customers were created in each month, by card brand, as CSV.

Run:    python3 signups.py /var/lib/komoju-sync/komoju.db > signups.csv
User:   a member of the group komoju-sync; the service may run or be stopped.
Needs:  Python 3.11 or later with SQLite 3.40 or later; pandas 3 (pip install pandas).
"""

import pathlib
import sqlite3
import sys

import pandas


def customers(path):
    """Return the live customers as a data frame."""
    # Read-only: such a connection never writes and never checkpoints.
    uri = pathlib.Path(path).resolve().as_uri() + "?mode=ro"
    connection = sqlite3.connect(uri, uri=True, timeout=5)
    try:
        # Name the columns that are needed: 'body' holds the whole customer and is large.
        return pandas.read_sql_query(
            "SELECT id, source_brand, created_at FROM customers", connection, parse_dates=["created_at"]
        )
    finally:
        # An open read transaction keeps SQLite from emptying the write-ahead log.
        connection.close()


def main():
    frame = customers(sys.argv[1])
    # Times are UTC; a month begins at midnight in Japan.
    month = frame["created_at"].dt.tz_convert("Asia/Tokyo").dt.strftime("%Y-%m").rename("month")
    brand = frame["source_brand"].fillna("none").rename("brand")
    counts = frame.groupby([month, brand]).size().rename("customers")
    counts.reset_index().to_csv(sys.stdout, index=False)


if __name__ == "__main__":
    main()
