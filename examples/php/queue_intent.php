#!/usr/bin/env php
<?php
/*
 * Queue one intent through the file door of komoju-sync, and wait for its outcome.
 *
 * Run:    echo '{"op": "create", "body": {"email": "a@example.com"}}' |
 *             php queue_intent.php /var/lib/komoju-sync/intents ticket-4711
 * User:   a member of the group komoju-sync. Nothing else is needed: no database access, no key.
 * Needs:  PHP 8.1 or later without further extensions.
 * Prints: the intent's line of the receipt, as JSON.
 * Exits:  0 done; 1 refused, rejected or cancelled; 3 not settled within a minute: then
 *         SELECT state, reason FROM intents WHERE id = 'ticket-4711'
 *         shows what it waits for.
 *
 * The second argument is the intent's id. An id is accepted once: after a crash or a timeout run
 * the same command again. The intent comes by standard input, because every user of the machine can
 * read the arguments of a program, and an intent may contain a payment token.
 */
declare(strict_types=1);

const WAIT_S = 60;

// A warning ends the program: a file that was not written completely must not be queued.
set_error_handler(function (int $level, string $message) {
    throw new ErrorException($message, 0, $level);
});

/** Put the intent into the spool directory as one complete file; return the file's name. */
function drop(string $spool, stdClass $intent): string
{
    // A fresh name for each file, so that its receipt cannot be that of an earlier file.
    $name = bin2hex(random_bytes(16)) . '.json';
    // The daemon leaves names alone that begin with a dot.
    $temporary = "$spool/.$name";
    $text = json_encode($intent, JSON_THROW_ON_ERROR | JSON_PRESERVE_ZERO_FRACTION);
    $file = fopen($temporary, 'x');
    // The service must be able to read the file, whatever the umask is.
    chmod($temporary, 0640);
    if (fwrite($file, $text) !== strlen($text) || !fsync($file) || !fclose($file)) {
        throw new RuntimeException("$temporary could not be written");
    }
    rename($temporary, "$spool/$name");
    // The new name must survive a power cut, too.
    $directory = fopen($spool, 'r');
    fsync($directory);
    fclose($directory);
    return $name;
}

/** Wait for the receipt or the refusal of a file; return the exit code and a text. */
function outcome(string $spool, string $name): array
{
    $until = hrtime(true) + WAIT_S * 1_000_000_000;
    $text = 'the file was not taken yet: is komoju-sync running?';
    while (hrtime(true) < $until) {
        clearstatcache();
        if (file_exists("$spool/rejected/$name.error")) {
            return [1, file_get_contents("$spool/rejected/$name.error")];
        }
        if (file_exists("$spool/receipts/$name.json")) {
            // The receipt is written when the file is accepted, and again when the intent settles.
            $receipt = file_get_contents("$spool/receipts/$name.json");
            $intent = json_decode($receipt, flags: JSON_THROW_ON_ERROR)->intents[0];
            $text = json_encode($intent, JSON_THROW_ON_ERROR | JSON_UNESCAPED_UNICODE);
            if ($intent->state === 'done') {
                return [0, $text];
            }
            if (in_array($intent->state, ['rejected', 'cancelled'], true)) {
                return [1, $text];
            }
        }
        usleep(100_000);
    }
    return [3, $text];
}

[, $spool, $id] = $argv;
// Objects and not arrays, so that {} does not become [].
$intent = json_decode(stream_get_contents(STDIN), flags: JSON_THROW_ON_ERROR);
$intent->id = $id;
[$code, $text] = outcome($spool, drop($spool, $intent));
echo rtrim($text), "\n";
exit($code);
