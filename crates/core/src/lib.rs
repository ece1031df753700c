//! The data types and decisions of komoju-sync: customers, changes, events, passes, intents, times,
//! the decisions about them ([`plan`]), and the conditions that need an operator ([`attention`]).
//! This crate is pure: it does no I/O and uses neither a clock nor a database.

pub mod attention;
pub mod change;
pub mod customer;
pub mod diff;
pub mod event;
pub mod fingerprint;
pub mod format;
pub mod intent;
pub mod json;
pub mod lag;
pub mod open_intent;
pub mod page;
pub mod park_timer;
pub mod pass;
pub mod plan;
pub mod raw_customer;
pub mod reduced_rate;
pub mod remote;
pub mod time;
pub mod traces;
pub mod unreadable;

pub use attention::{Attention, Severity};
pub use change::{ChangeEntry, ChangeKind, MirrorRow, Origin};
pub use customer::{BadCustomer, Customer, CustomerId};
pub use diff::Diff;
pub use event::{Event, EventPage, EventReading};
pub use page::{Hints, Page, PageQuery};
pub use pass::{PassId, PassKind, PassOutcome, Tally};
pub use raw_customer::{RawCustomer, Source};
pub use reduced_rate::ReducedRate;
pub use traces::{SearchText, Traces};
pub use unreadable::Unreadable;
