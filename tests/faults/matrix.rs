//! The rows of the matrix, and the macro that makes tests of them.

/// One fault, as it is played and documented.
pub struct Row {
    /// The entry of the matrix that it belongs to.
    pub entry: &'static str,
    /// What is wrong.
    pub fault: &'static str,
    /// How the command under the fault ends.
    pub ends: Ends,
    /// The states of a create, an update and a delete in the outbox.
    pub outbox: Outbox,
    /// The test's name, with its modules.
    pub test: &'static str,
}

/// How a `sync` under a fault ends, and a part of its output.
#[derive(Clone, Copy, Debug)]
pub enum Ends {
    /// The pass is complete.
    Complete(&'static str),
    /// The pass retries until it is complete.
    Outlasts(&'static str),
    /// The pass fails.
    Fails(&'static str),
    /// The list was read, and customers were neither listed nor verified.
    Partial(&'static str),
    /// The pass is complete, and one customer is named as unreadable.
    Unreadable(&'static str),
    /// The daemon sweeps and pushes, and notes why it does not follow events.
    WithoutEvents(&'static str),
    /// An operator must decide.
    Waits(&'static str),
    /// The key is refused.
    Refused(&'static str),
    /// The configuration is refused.
    Misconfigured(&'static str),
    /// The database cannot be used.
    Unusable(&'static str),
    /// The daemon gets SIGTERM, and stops.
    Stops(&'static str),
    /// The daemon is killed.
    Killed(&'static str),
    /// A test elsewhere plays the whole fault.
    Elsewhere(&'static str),
}

impl Ends {
    /// Returns the exit code of the contract; -1 where there is none.
    pub fn code(self) -> i32 {
        match self {
            Self::Complete(_) | Self::Outlasts(_) | Self::WithoutEvents(_) | Self::Stops(_) => 0,
            Self::Fails(_) | Self::Partial(_) => 1,
            Self::Misconfigured(_) => 2,
            Self::Unreadable(_) | Self::Waits(_) => 3,
            Self::Refused(_) => 4,
            Self::Unusable(_) => 5,
            Self::Killed(_) => -1,
            Self::Elsewhere(_) => unreachable!("it is not played here"),
        }
    }

    /// Returns a part of the output.
    pub fn message(self) -> &'static str {
        match self {
            Self::Complete(message)
            | Self::Outlasts(message)
            | Self::WithoutEvents(message)
            | Self::Fails(message)
            | Self::Partial(message)
            | Self::Unreadable(message)
            | Self::Waits(message)
            | Self::Refused(message)
            | Self::Misconfigured(message)
            | Self::Unusable(message)
            | Self::Stops(message)
            | Self::Killed(message)
            | Self::Elsewhere(message) => message,
        }
    }

    /// Returns the text in the table.
    pub fn text(self) -> &'static str {
        match self {
            Self::Complete(_) => "the pass is complete; exit 0",
            Self::Outlasts(_) => "the pass retries and is complete; exit 0",
            Self::Fails(_) => "the pass fails, and no customer is deleted; exit 1",
            Self::Partial(_) => {
                "the pass is partial: it counts the customers that it could not verify; exit 1"
            }
            Self::Unreadable(_) => "the pass is complete without that customer, which is named; exit 3",
            Self::WithoutEvents(_) => {
                "the daemon sweeps and pushes without events, and notes the reason; it stops with exit 0"
            }
            Self::Waits(_) => "an operator must decide; exit 3",
            Self::Refused(_) => "the key is refused; exit 4",
            Self::Misconfigured(_) => "nothing is started; exit 2",
            Self::Unusable(_) => "the database is left as it is; exit 5",
            Self::Stops(_) => "it stops within two seconds; exit 0",
            Self::Killed(_) => "committed data is kept",
            Self::Elsewhere(_) => "",
        }
    }
}

/// The states of the three intents in the outbox when the command under the fault ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outbox {
    /// All are done.
    Done,
    /// None was sent.
    Kept,
    /// All were tried and wait for a retry.
    Retried,
    /// Create and update wait for a retry. The delete is done, because its answer needs no body.
    DeleteDone,
    /// The create waits for a retry, the others are done.
    CreateRetried,
    /// The update waits for a retry, the others are done.
    UpdateRetried,
    /// The create is still recorded as being sent, the others are done.
    CreateUnderWay,
    /// The create was rejected, the others are done.
    CreateRejected,
    /// All wait for an operator.
    Parked,
}

impl Outbox {
    /// Returns the states of the create, the update and the delete.
    pub fn states(self) -> [&'static str; 3] {
        match self {
            Self::Done => ["done"; 3],
            Self::Kept => ["queued"; 3],
            Self::Retried => ["waiting"; 3],
            Self::DeleteDone => ["waiting", "waiting", "done"],
            Self::CreateRetried => ["waiting", "done", "done"],
            Self::UpdateRetried => ["done", "waiting", "done"],
            Self::CreateUnderWay => ["sending", "done", "done"],
            Self::CreateRejected => ["rejected", "done", "done"],
            Self::Parked => ["parked"; 3],
        }
    }

    /// Returns the text in the table.
    pub fn text(self) -> &'static str {
        match self {
            Self::Done => "all pushes are done",
            Self::Kept => "no push is sent",
            Self::Retried => "pushes are retried",
            Self::DeleteDone => "pushes are retried, except the delete, which a 200 settles",
            Self::CreateRetried => "the create is retried",
            Self::UpdateRetried => "the update is retried",
            Self::CreateUnderWay => "the create is retried at the next start",
            Self::CreateRejected => "the create is rejected",
            Self::Parked => "pushes are parked",
        }
    }
}

/// Makes a test of each `(name, entry, fault, ends, outbox, play)`, and the list of their rows.
/// With `under` and readings the local KOMOJU has these from the start.
macro_rules! faults {
    [$(
        ($name:ident, $entry:expr, $fault:expr, $ends:expr, $outbox:expr, $play:expr $(, under $readings:expr)? $(,)?)
    ),* $(,)?] => {
        /// The rows that this module plays.
        pub const ROWS: &[crate::matrix::Row] = &[$(crate::matrix::Row {
            entry: $entry,
            fault: $fault,
            ends: $ends,
            outbox: $outbox,
            test: concat!(module_path!(), "::", stringify!($name)),
        }),*];
        $(
            #[test]
            fn $name() {
                let name = concat!(module_path!(), "::", stringify!($name));
                let row = ROWS.iter().find(|row| row.test == name).unwrap();
                let readings = komoju_sandbox::Readings::default();
                $(let readings = { let _ = readings; $readings };)?
                crate::case::Case::play(row, readings, $play);
            }
        )*
    };
}

pub(crate) use faults;

/// The entries of the whole matrix, in order. Each row names one of them.
pub const MATRIX: &[&str] = &[
    "connect refused",
    "DNS failure",
    "TLS failure (never plaintext)",
    "reset before the answer",
    "reset within the answer",
    "reset after the answer",
    "early end against Content-Length",
    "truncated JSON",
    "trailing garbage",
    "invalid UTF-8",
    "huge and tiny numbers",
    "one byte a second",
    "429 without Retry-After",
    "429 with seconds",
    "429 with a date",
    "429 with a past date",
    "429 with the year 9999",
    "500 to 504",
    "503 as HTML",
    "502 with a card code",
    "501",
    "418",
    "a 204 where 200 is due",
    "a redirect to the same host",
    "a redirect to another host",
    "a redirect to plain http",
    "gzip bomb",
    "10 GB",
    "a 10 MB header",
    "200 with an HTML page",
    "200 with another shape",
    "200 with `{}`",
    "401 in the middle of a sweep",
    "403 in the middle of a sweep",
    "inserts between pages",
    "deletes between pages",
    "reorders between pages",
    "total negative",
    "total shrinking",
    "total enormous",
    "total text",
    "total null",
    "last_page negative",
    "last_page shrinking",
    "last_page enormous",
    "last_page text",
    "last_page null",
    "the same page for every request",
    "an id twice with different content",
    "an id with `../`",
    "an id with `%2e`",
    "an id with `?`",
    "an id with NUL",
    "an id with emoji",
    "an id of a megabyte",
    "no id at all",
    "metadata nested",
    "metadata huge",
    "metadata null",
    "metadata an array",
    "an empty list after a full one",
    "a half list",
    "a mass deletion",
    "a total that is not exact",
    "a last_page that is not exact",
    "pages from which rows are filtered",
    "an order that changes",
    "a customer twice on a page",
    "a page past the end",
    "reads that lag",
    "another answer for a deleted customer",
    "deleted customers in the list",
    "a limit of requests a second",
    "no event list",
    "another account's key",
    "a clock that jumps a year",
    "a clock that runs backwards",
    "SIGTERM within a page",
    "SIGTERM within a POST",
    "kill -9 anywhere",
    "disk full at each write",
    "I/O error at each write",
    "read-only file system",
    "two daemons on one database",
    "a parked reader",
    "a damaged database",
    "a foreign database",
    "a database from the future",
    "an old backup restored",
];
