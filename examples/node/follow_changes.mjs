#!/usr/bin/env node
// Print every change since the last run, one JSON object a line, and store how far that was.
//
// Run:    node follow_changes.mjs /var/lib/komoju-sync/komoju.db cursor.json
//         With --follow behind it, wait for further changes until Ctrl-C.
// User:   a member of the group komoju-sync that may write cursor.json.
// Needs:  what mirror.mjs needs, and that file beside this one.
// Prints: {"start_over": LOG_ID} where the log is new to this cursor, else a change.
//
// The cursor is (log_id, seq). After 'komoju-sync restore' the log has another log_id, and its
// numbers mean other changes: forget what you built from the old log, and start over at 0.

import { closeSync, existsSync, fsyncSync, openSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { query } from './mirror.mjs';

const BATCH = 500;
const POLL_MS = 2_000;

/** Replace this by what you do with a change. After a crash the last batch comes again. */
function handle(change) {
    console.log(JSON.stringify(change));
}

/** Return the log's log_id and head, and the changes after seq. */
function readBatch(database, seq) {
    if (!Number.isSafeInteger(seq)) throw new Error(`seq ${seq} is no whole number`);
    const [info] = query(database, 'SELECT log_id, head_seq FROM mirror_info');
    const rows = query(
        database,
        `SELECT (SELECT log_id FROM mirror_info) AS log_id,
                seq, kind, customer_id, observed_at, origin, intent_id, diff, after
         FROM changes WHERE seq > ${seq} ORDER BY seq LIMIT ${BATCH}`,
    );
    // The database may have been restored between the two queries: then the next batch starts over.
    const changes = rows.filter((row) => row.log_id === info.log_id).map(changeOf);
    return { ...info, changes };
}

/** Return the change of a row. Diff and after are null for some kinds, and after an erasure. */
function changeOf({ log_id, diff, after, ...row }) {
    const parse = (text) => (text === null ? null : JSON.parse(text));
    return { ...row, diff: parse(diff), after: parse(after) };
}

/** Replace the cursor's file in one step, so that a crash leaves the old one or the new one. */
function store(path, cursor) {
    const file = openSync(`${path}.new`, 'w');
    writeFileSync(file, JSON.stringify(cursor));
    fsyncSync(file);
    closeSync(file);
    renameSync(`${path}.new`, path);
}

const [database, cursorFile, option] = process.argv.slice(2);
let cursor = existsSync(cursorFile) ? JSON.parse(readFileSync(cursorFile, 'utf8')) : { log_id: null, seq: 0 };
for (;;) {
    const { log_id, head_seq, changes } = readBatch(database, cursor.seq);
    if (log_id !== cursor.log_id || cursor.seq > head_seq) {
        handle({ start_over: log_id });
        cursor = { log_id, seq: 0 };
        store(cursorFile, cursor);
        continue;
    }
    changes.forEach(handle);
    if (changes.length > 0) {
        cursor.seq = changes.at(-1).seq;
        store(cursorFile, cursor);
    } else if (option === '--follow') {
        await sleep(POLL_MS);
    } else {
        break;
    }
}
