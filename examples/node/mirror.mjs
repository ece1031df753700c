// Queries on the mirror, for the programs beside this file.
//
// User:   a member of the group komoju-sync; the service may run or be stopped.
// Needs:  Node.js 22.13 or later, which has node:sqlite. An older one (18 or later) runs the shell
//         sqlite3 (3.40 or later) instead, which must be in PATH.

import { execFileSync } from 'node:child_process';

const [major, minor] = process.versions.node.split('.').map(Number);
const sqlite = major > 22 || (major === 22 && minor >= 13) ? await import('node:sqlite') : null;

/**
 * Return the rows of one SELECT as objects. The SQL must not contain text from outside.
 *
 * The connection is opened for reading only: it never writes and never checkpoints. It is a new one
 * for each query, because an open one would still show the old file after 'komoju-sync restore'.
 */
export function query(database, sql) {
    if (sqlite === null) {
        const options = ['-batch', '-readonly', '-json', '-cmd', '.timeout 5000'];
        const json = execFileSync('sqlite3', [...options, database, sql], {
            encoding: 'utf8',
            maxBuffer: Infinity,
        });
        // The shell prints nothing where there is no row.
        return json.trim() === '' ? [] : JSON.parse(json);
    }
    const connection = new sqlite.DatabaseSync(database, { readOnly: true });
    try {
        connection.exec('PRAGMA busy_timeout = 5000');
        return connection.prepare(sql).all();
    } finally {
        connection.close();
    }
}
