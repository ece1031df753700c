#!/usr/bin/env node
// Queue one intent through the file door of komoju-sync, and wait for its outcome.
//
// Run:    echo '{"op": "create", "body": {"email": "a@example.com"}}' |
//             node queue_intent.mjs /var/lib/komoju-sync/intents ticket-4711
// User:   a member of the group komoju-sync. Nothing else is needed: no database access, no key.
// Needs:  Node.js 18 or later without packages.
// Prints: the intent's line of the receipt, as JSON.
// Exits:  0 done; 1 refused, rejected or cancelled; 3 not settled within a minute: then
//         SELECT state, reason FROM intents WHERE id = 'ticket-4711'
//         shows what it waits for.
//
// The second argument is the intent's id. An id is accepted once: after a crash or a timeout run
// the same command again. The intent comes by standard input, because every user of the machine can
// read the arguments of a program, and an intent may contain a payment token.

import { randomUUID } from 'node:crypto';
import { closeSync, fchmodSync, fsyncSync, openSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

const WAIT_MS = 60_000;

/** Put the intent into the spool directory as one complete file; return the file's name. */
function drop(spool, intent) {
    // A fresh name for each file, so that its receipt cannot be that of an earlier file.
    const name = `${randomUUID()}.json`;
    // The daemon leaves names alone that begin with a dot.
    const temporary = join(spool, `.${name}`);
    const file = openSync(temporary, 'wx');
    // The service must be able to read the file, whatever the umask is.
    fchmodSync(file, 0o640);
    writeFileSync(file, JSON.stringify(intent));
    fsyncSync(file);
    closeSync(file);
    renameSync(temporary, join(spool, name));
    // The new name must survive a power cut, too.
    const directory = openSync(spool, 'r');
    fsyncSync(directory);
    closeSync(directory);
    return name;
}

/** Return the text of a file, or null where there is none. */
function read(path) {
    try {
        return readFileSync(path, 'utf8');
    } catch (error) {
        if (error.code === 'ENOENT') return null;
        throw error;
    }
}

/** Wait for the receipt or the refusal of a file; return the exit code and a text. */
async function outcome(spool, name) {
    const until = performance.now() + WAIT_MS;
    let text = 'the file was not taken yet: is komoju-sync running?';
    while (performance.now() < until) {
        const refusal = read(join(spool, 'rejected', `${name}.error`));
        if (refusal !== null) return [1, refusal];
        const receipt = read(join(spool, 'receipts', `${name}.json`));
        if (receipt !== null) {
            // The receipt is written when the file is accepted, and again when the intent settles.
            const [intent] = JSON.parse(receipt).intents;
            text = JSON.stringify(intent);
            if (intent.state === 'done') return [0, text];
            if (['rejected', 'cancelled'].includes(intent.state)) return [1, text];
        }
        await sleep(100);
    }
    return [3, text];
}

const [spool, id] = process.argv.slice(2);
const intent = { ...JSON.parse(readFileSync(0, 'utf8')), id };
const [code, text] = await outcome(spool, drop(spool, intent));
console.log(text.trimEnd());
process.exitCode = code;
