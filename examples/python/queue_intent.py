#!/usr/bin/env python3
"""Queue one intent through the file door of komoju-sync, and wait for its outcome.

Run:    echo '{"op": "create", "body": {"email": "a@example.com"}}' |
            python3 queue_intent.py /var/lib/komoju-sync/intents ticket-4711
User:   a member of the group komoju-sync. Nothing else is needed: no database access, no key.
Needs:  Python 3.8 or later, standard library only.
Prints: the intent's line of the receipt, as JSON.
Exits:  0 done; 1 refused, rejected or cancelled; 3 not settled within a minute: then
        SELECT state, reason FROM intents WHERE id = 'ticket-4711'
        shows what it waits for.

The second argument is the intent's id. An id is accepted once: after a crash or a timeout run the
same command again. The intent comes by standard input, because every user of the machine can read
the arguments of a program, and an intent may contain a payment token.
"""

import json
import os
import sys
import time
import uuid

WAIT_S = 60


def drop(spool, intent):
    """Put the intent into the spool directory as one complete file; return the file's name."""
    # A fresh name for each file, so that its receipt cannot be that of an earlier file.
    name = f"{uuid.uuid4()}.json"
    # The daemon leaves names alone that begin with a dot.
    temporary = os.path.join(spool, f".{name}")
    with open(temporary, "x", encoding="utf-8") as file:
        # The service must be able to read the file, whatever the umask is.
        os.fchmod(file.fileno(), 0o640)
        json.dump(intent, file)
        file.flush()
        os.fsync(file.fileno())
    os.rename(temporary, os.path.join(spool, name))
    # The new name must survive a power cut, too.
    directory = os.open(spool, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(directory)
    os.close(directory)
    return name


def read(path):
    """Return the text of a file, or None where there is none."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return None


def outcome(spool, name):
    """Wait for the receipt or the refusal of a file; return the exit code and a text."""
    until = time.monotonic() + WAIT_S
    text = "the file was not taken yet: is komoju-sync running?"
    while time.monotonic() < until:
        refusal = read(os.path.join(spool, "rejected", f"{name}.error"))
        if refusal is not None:
            return 1, refusal
        receipt = read(os.path.join(spool, "receipts", f"{name}.json"))
        if receipt is not None:
            # The receipt is written when the file is accepted, and again when the intent settles.
            intent = json.loads(receipt)["intents"][0]
            text = json.dumps(intent)
            if intent["state"] == "done":
                return 0, text
            if intent["state"] in ("rejected", "cancelled"):
                return 1, text
        time.sleep(0.1)
    return 3, text


def main():
    spool, intent_id = sys.argv[1:]
    intent = json.load(sys.stdin)
    intent["id"] = intent_id
    code, text = outcome(spool, drop(spool, intent))
    print(text.rstrip())
    return code


if __name__ == "__main__":
    sys.exit(main())
