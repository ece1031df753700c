//! What a row of the matrix is, and how rows become tests.

/// One fault, as it is played and as it is written down.
pub struct Row {
    /// The phrase of the matrix that it belongs to.
    pub entry: &'static str,
    /// What is wrong.
    pub fault: &'static str,
    /// How the command under it ends.
    pub ends: Ends,
    /// What becomes of a create, an update and a delete that lie in the outbox.
    pub outbox: Outbox,
    /// The test's name, with its modules.
    pub test: &'static str,
}

/// How a `sync` under a fault ends, and a part of what is said.
#[derive(Clone, Copy, Debug)]
pub enum Ends {
    /// The pass is complete.
    Complete(&'static str),
    /// The pass asks again until it is complete.
    Outlasts(&'static str),
    /// The pass fails.
    Fails(&'static str),
    /// The list was read, and customers were neither listed nor verified.
    Partial(&'static str),
    /// The pass is complete, and one customer is named as unreadable.
    Unreadable(&'static str),
    /// A person must decide.
    Waits(&'static str),
    /// The key is refused.
    Refused(&'static str),
    /// The configuration is.
    Misconfigured(&'static str),
    /// The database cannot be used.
    Unusable(&'static str),
    /// The daemon is told to stop, and does.
    Stops(&'static str),
    /// The daemon ends without a word.
    Killed(&'static str),
    /// A test elsewhere is the whole of it.
    Elsewhere(&'static str),
}

impl Ends {
    /// The exit code of the contract; -1 where there is none.
    pub fn code(self) -> i32 {
        match self {
            Self::Complete(_) | Self::Outlasts(_) | Self::Stops(_) => 0,
            Self::Fails(_) | Self::Partial(_) => 1,
            Self::Misconfigured(_) => 2,
            Self::Unreadable(_) | Self::Waits(_) => 3,
            Self::Refused(_) => 4,
            Self::Unusable(_) => 5,
            Self::Killed(_) => -1,
            Self::Elsewhere(_) => unreachable!("it is not played here"),
        }
    }

    /// A part of what a person reads.
    pub fn message(self) -> &'static str {
        match self {
            Self::Complete(message)
            | Self::Outlasts(message)
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

    /// What the table says.
    pub fn text(self) -> &'static str {
        match self {
            Self::Complete(_) => "the pass is complete; exit 0",
            Self::Outlasts(_) => "the pass asks again and is complete; exit 0",
            Self::Fails(_) => "the pass fails, and no customer is deleted; exit 1",
            Self::Partial(_) => {
                "the pass is partial: it counts the customers that it could not verify; exit 1"
            }
            Self::Unreadable(_) => "the pass is complete without that customer, which is named; exit 3",
            Self::Waits(_) => "an operator must decide; exit 3",
            Self::Refused(_) => "the key is refused; exit 4",
            Self::Misconfigured(_) => "nothing is started; exit 2",
            Self::Unusable(_) => "the database is left as it is; exit 5",
            Self::Stops(_) => "it stops within two seconds; exit 0",
            Self::Killed(_) => "what was committed stays",
            Self::Elsewhere(_) => "",
        }
    }
}

/// What became of the three intents in the outbox when the command under the fault ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outbox {
    /// They are done.
    Done,
    /// None has left.
    Kept,
    /// They were tried, and are tried again.
    Retried,
    /// Create and update are tried again; the delete, whose answer need not hold anything, is done.
    DeleteDone,
    /// The create is tried again, the others are done.
    CreateRetried,
    /// The update is tried again, the others are done.
    UpdateRetried,
    /// The create is on its way as far as anybody knows, the others are done.
    CreateUnderWay,
    /// The create was rejected, the others are done.
    CreateRejected,
    /// A person decides about all.
    Parked,
}

impl Outbox {
    /// The states of the create, of the update and of the delete.
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

    /// What the table says.
    pub fn text(self) -> &'static str {
        match self {
            Self::Done => "pushes are not touched",
            Self::Kept => "no push leaves",
            Self::Retried => "pushes are tried again",
            Self::DeleteDone => "pushes are tried again, but for the delete, which a 200 says is done",
            Self::CreateRetried => "the create is tried again",
            Self::UpdateRetried => "the update is tried again",
            Self::CreateUnderWay => "the create is taken up again at the next start",
            Self::CreateRejected => "the create is rejected",
            Self::Parked => "pushes are parked",
        }
    }
}

/// Makes a test of each `(name, entry, fault, ends, outbox, how it is played)`, and their list. With `under` and readings, the local
/// KOMOJU has these from the beginning.
macro_rules! faults {
    [$(
        ($name:ident, $entry:expr, $fault:expr, $ends:expr, $outbox:expr, $play:expr $(, under $readings:expr)? $(,)?)
    ),* $(,)?] => {
        /// The rows that are played here.
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

/// The whole matrix, in its own words and order: what each row names one of.
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
    "the same page for ever",
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
