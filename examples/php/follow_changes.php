#!/usr/bin/env php
<?php
/*
 * Print every change since the last run, one JSON object a line, and store how far that was.
 *
 * Run:    php follow_changes.php /var/lib/komoju-sync/komoju.db cursor.json
 *         With --follow behind it, wait for further changes until Ctrl-C.
 * User:   a member of the group komoju-sync that may write cursor.json.
 * Needs:  PHP 8.1 or later with pdo_sqlite (Debian: php-sqlite3) and SQLite 3.40 or later.
 * Prints: {"start_over": LOG_ID} where the log is new to this cursor, else a change.
 *
 * The cursor is (log_id, seq). After 'komoju-sync restore' the log has another log_id, and its
 * numbers mean other changes: forget what you built from the old log, and start over at 0.
 */
declare(strict_types=1);

const BATCH = 500;
const POLL_S = 2;

set_error_handler(function (int $level, string $message) {
    throw new ErrorException($message, 0, $level);
});

/** Replace this by what you do with a change. After a crash the last batch comes again. */
function handle(array $change): void
{
    echo json_encode($change, JSON_THROW_ON_ERROR | JSON_UNESCAPED_UNICODE), "\n";
}

/** Return the log's log_id and head, and the changes after seq, all of the same moment. */
function read_batch(string $path, int $seq): array
{
    // A connection for each batch: an open one would still show the old file after a restore.
    $connection = new PDO("sqlite:$path", null, null, [
        PDO::SQLITE_ATTR_OPEN_FLAGS => PDO::SQLITE_OPEN_READONLY,
        PDO::ATTR_TIMEOUT => 5,
        PDO::ATTR_ERRMODE => PDO::ERRMODE_EXCEPTION,
        PDO::ATTR_DEFAULT_FETCH_MODE => PDO::FETCH_ASSOC,
    ]);
    $connection->beginTransaction();
    $info = $connection->query('SELECT log_id, head_seq FROM mirror_info')->fetch();
    $statement = $connection->prepare(
        'SELECT seq, kind, customer_id, observed_at, origin, intent_id, diff, after'
        . ' FROM changes WHERE seq > ? ORDER BY seq LIMIT ' . BATCH
    );
    $statement->execute([$seq]);
    $changes = $statement->fetchAll();
    $connection->rollBack();
    foreach ($changes as &$change) {
        foreach (['diff', 'after'] as $column) {
            // Null for some kinds, and where an erasure removed the content.
            if ($change[$column] !== null) {
                $change[$column] = json_decode($change[$column], flags: JSON_THROW_ON_ERROR);
            }
        }
    }
    return [$info['log_id'], (int) $info['head_seq'], $changes];
}

/** Replace the cursor's file in one step, so that a crash leaves the old one or the new one. */
function store(string $path, array $cursor): void
{
    $file = fopen("$path.new", 'w');
    fwrite($file, json_encode($cursor, JSON_THROW_ON_ERROR));
    fsync($file);
    fclose($file);
    rename("$path.new", $path);
}

[, $database, $cursor_file] = $argv;
$follow = ($argv[3] ?? '') === '--follow';
$cursor = file_exists($cursor_file)
    ? json_decode(file_get_contents($cursor_file), true, flags: JSON_THROW_ON_ERROR)
    : ['log_id' => null, 'seq' => 0];
while (true) {
    [$log_id, $head, $changes] = read_batch($database, $cursor['seq']);
    if ($log_id !== $cursor['log_id'] || $cursor['seq'] > $head) {
        handle(['start_over' => $log_id]);
        $cursor = ['log_id' => $log_id, 'seq' => 0];
        store($cursor_file, $cursor);
        continue;
    }
    array_walk($changes, handle(...));
    if ($changes !== []) {
        $cursor['seq'] = end($changes)['seq'];
        store($cursor_file, $cursor);
    } elseif ($follow) {
        sleep(POLL_S);
    } else {
        break;
    }
}
