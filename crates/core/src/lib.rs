//! The model and the decisions of komoju-sync as values: customers, changes, passes, intents,
//! times, the decisions that follow from them ([`plan`]), and the conditions that need an operator
//! ([`attention`]). Pure: no I/O, no clock, no database.

pub mod attention;
pub mod change;
pub mod customer;
pub mod diff;
pub mod event;
pub mod fingerprint;
pub mod intent;
pub mod json;
pub mod lag;
pub mod listed;
pub mod open_intent;
pub mod page;
pub mod pass;
pub mod patience;
pub mod plan;
pub mod remote;
pub mod slowed;
pub mod time;
pub mod traces;
pub mod unreadable;
pub mod words;

pub use attention::{Attention, Severity};
pub use change::{Entry, Kind, Origin, Standing};
pub use customer::{BadCustomer, Customer, CustomerId};
pub use diff::Diff;
pub use event::{Event, EventPage, EventReading};
pub use listed::{Listed, Source};
pub use page::{Hints, Page, PageQuery};
pub use pass::{Outcome, PassId, PassKind, Tally};
pub use slowed::Slowed;
pub use traces::{Searched, Traces};
pub use unreadable::Unreadable;
