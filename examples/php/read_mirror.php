#!/usr/bin/env php
<?php
/*
 * Print every live customer of the mirror, one JSON object a line.
 *
 * Run:    php read_mirror.php /var/lib/komoju-sync/komoju.db
 * User:   a member of the group komoju-sync; the service may run or be stopped.
 * Needs:  PHP 8.1 or later with pdo_sqlite (Debian: php-sqlite3) and SQLite 3.40 or later.
 * Exits:  0 fine; 1 no sweep is complete yet, so that customers may be missing.
 */
declare(strict_types=1);

/** Open the database for reading only: such a connection never writes and never checkpoints. */
function connect(string $path): PDO
{
    return new PDO("sqlite:$path", null, null, [
        PDO::SQLITE_ATTR_OPEN_FLAGS => PDO::SQLITE_OPEN_READONLY,
        PDO::ATTR_TIMEOUT => 5,
        PDO::ATTR_ERRMODE => PDO::ERRMODE_EXCEPTION,
        PDO::ATTR_DEFAULT_FETCH_MODE => PDO::FETCH_ASSOC,
    ]);
}

$connection = connect($argv[1]);
$last_sweep_at = $connection->query('SELECT last_sweep_at FROM mirror_info')->fetchColumn();
if ($last_sweep_at === null) {
    fwrite(STDERR, "no sweep is complete yet: see 'komoju-sync status'\n");
    exit(1);
}
// Read all rows before the first is used: an open read transaction keeps SQLite from emptying the
// write-ahead log.
$rows = $connection->query(
    'SELECT id, email, source_brand, metadata, created_at, changed_at FROM customers ORDER BY id'
)->fetchAll();
$connection = null;
foreach ($rows as $customer) {
    $customer['metadata'] = json_decode($customer['metadata'] ?? '{}', flags: JSON_THROW_ON_ERROR);
    echo json_encode($customer, JSON_THROW_ON_ERROR | JSON_UNESCAPED_UNICODE), "\n";
}
