#!/usr/bin/env node
// Print every live customer of the mirror, one JSON object a line.
//
// Run:    node read_mirror.mjs /var/lib/komoju-sync/komoju.db
// User:   a member of the group komoju-sync; the service may run or be stopped.
// Needs:  what mirror.mjs needs, and that file beside this one.
// Exits:  0 fine; 1 no sweep is complete yet, so that customers may be missing.

import { query } from './mirror.mjs';

const [database] = process.argv.slice(2);
const [info] = query(database, 'SELECT last_sweep_at FROM mirror_info');
if (info.last_sweep_at === null) {
    console.error("no sweep is complete yet: see 'komoju-sync status'");
    process.exit(1);
}
const rows = query(
    database,
    'SELECT id, email, source_brand, metadata, created_at, changed_at FROM customers ORDER BY id',
);
for (const row of rows) {
    console.log(JSON.stringify({ ...row, metadata: JSON.parse(row.metadata ?? '{}') }));
}
