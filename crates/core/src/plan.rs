//! Plans: what an answer of the API means for the mirror and the outbox. Plans are pure functions
//! of their arguments: no I/O, no clock, no randomness.
//!
//! ```text
//!   page of the list   ─▶ walk          which page is read next, and where does the list end?
//!                         parts         how is a page read that is too large?
//!   read of a customer ─▶ observation   what is done about it?
//!                         comparison    what does it change?
//!                         lag           may it be older than the log?
//!   end of a sweep     ─▶ rows          which customers of the mirror were listed?
//!                         absence       what is proven about the others?
//!                         lookups       how many of them are requested?
//!                         busy_fields   which fields may change on every read?
//!   the event list     ─▶ tail          which page is read next, and how often?
//!   an event           ─▶ hints         when is its customer requested, and what follows from the answer?
//!   a step of a pass   ─▶ writes        what is written, and what does a dry run print?
//!   a new key          ─▶ account       does it read the same account?
//!   a failed request   ─▶ retry         is it repeated, and when?
//!   an open intent     ─▶ attempt       what does an attempt read, commit and send next?
//!                         outcome       how can an attempt end, and how long is the wait after it?
//!                         settle        what does its outcome write?
//!   an unknown outcome ─▶ read_back     did the update take effect?
//!                         key_age       how far does the create's key still prevent a duplicate?
//!                         creates       which customer did the create make?
//!                         create_window which page of its candidates is read next?
//!   a spool directory  ─▶ spool         which files are taken, and in which order?
//! ```

pub mod absence;
pub mod account;
pub mod attempt;
pub mod busy_fields;
pub mod comparison;
pub mod create_window;
pub mod creates;
pub mod hints;
pub mod key_age;
pub mod lag;
pub mod lookups;
pub mod observation;
pub mod outcome;
pub mod parts;
pub mod read_back;
pub mod retry;
pub mod rows;
pub mod settle;
pub mod spool;
pub mod tail;
pub mod walk;
pub mod writes;
