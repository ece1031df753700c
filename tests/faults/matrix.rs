//! What a row of the matrix is, and how rows become tests.

/// One fault, as it is played and as it is written down.
pub struct Row {
    /// The phrase of the matrix that it belongs to.
    pub entry: &'static str,
    /// What is wrong.
    pub fault: &'static str,
    /// How the command under it ends.
    pub ends: Ends,
    /// What becomes of a create and an update that lie in the outbox.
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
            Self::Fails(_) => 1,
            Self::Misconfigured(_) => 2,
            Self::Waits(_) => 3,
            Self::Refused(_) => 4,
            Self::Unusable(_) => 5,
            Self::Killed(_) => -1,
            Self::Elsewhere(_) => unreachable!("it is not played here"),
        }
    }

    /// A part of what a person reads.
    pub fn said(self) -> &'static str {
        match self {
            Self::Complete(said)
            | Self::Outlasts(said)
            | Self::Fails(said)
            | Self::Waits(said)
            | Self::Refused(said)
            | Self::Misconfigured(said)
            | Self::Unusable(said)
            | Self::Stops(said)
            | Self::Killed(said)
            | Self::Elsewhere(said) => said,
        }
    }

    /// What the table says.
    pub fn words(self) -> &'static str {
        match self {
            Self::Complete(_) => "the pass is complete; exit 0",
            Self::Outlasts(_) => "the pass asks again and is complete; exit 0",
            Self::Fails(_) => "the pass fails, and nobody is deleted; exit 1",
            Self::Waits(_) => "it waits for a person; exit 3",
            Self::Refused(_) => "the key is refused; exit 4",
            Self::Misconfigured(_) => "nothing is started; exit 2",
            Self::Unusable(_) => "the database is left as it is; exit 5",
            Self::Stops(_) => "it stops within two seconds; exit 0",
            Self::Killed(_) => "what was committed stays",
            Self::Elsewhere(_) => "",
        }
    }
}

/// What became of the two intents in the outbox when the command under the fault ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outbox {
    /// They are done.
    Done,
    /// Neither has left.
    Kept,
    /// They were tried, and are tried again.
    Retried,
    /// The create is tried again, the update is done.
    CreateRetried,
    /// The update is tried again, the create is done.
    UpdateRetried,
    /// The create is on its way as far as anybody knows, the update is done.
    CreateUnderWay,
    /// The create was rejected, the update is done.
    CreateRejected,
    /// A person decides about both.
    Parked,
}

impl Outbox {
    /// The states of the create and of the update.
    pub fn states(self) -> [&'static str; 2] {
        match self {
            Self::Done => ["done", "done"],
            Self::Kept => ["queued", "queued"],
            Self::Retried => ["waiting", "waiting"],
            Self::CreateRetried => ["waiting", "done"],
            Self::UpdateRetried => ["done", "waiting"],
            Self::CreateUnderWay => ["sending", "done"],
            Self::CreateRejected => ["rejected", "done"],
            Self::Parked => ["parked", "parked"],
        }
    }

    /// What the table says.
    pub fn words(self) -> &'static str {
        match self {
            Self::Done => "pushes are not touched",
            Self::Kept => "no push leaves",
            Self::Retried => "pushes are tried again",
            Self::CreateRetried => "the create is tried again",
            Self::UpdateRetried => "the update is tried again",
            Self::CreateUnderWay => "the create is taken up again at the next start",
            Self::CreateRejected => "the create is rejected",
            Self::Parked => "pushes are parked",
        }
    }
}

/// Makes a test of each `(name, entry, fault, ends, outbox, how it is played)`, and their list.
macro_rules! faults {
    [$(($name:ident, $entry:expr, $fault:expr, $ends:expr, $outbox:expr, $play:expr $(,)?)),* $(,)?] => {
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
                crate::case::Case::play(row, $play);
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
