//! The decisions: what an answer means for the mirror. Values in, values out; no I/O, no clock, no chance.
//!
//! ```text
//!   page of the list ─▶ walk      which page comes next, and where does the list end?
//!                       parts     how is it read where it is too large?
//!                       sighting  what does a listed customer change?
//!                       lag       may the read be older than the log?
//!   end of a sweep   ─▶ evidence  which customers were not seen, and what is proven about them?
//!   a new key        ─▶ guard     does it read the same account?
//!   a failed request ─▶ retry     is it asked again, and when?
//! ```

pub mod busy_fields;
pub mod creates;
pub mod evidence;
pub mod guard;
pub mod lag;
pub mod outcome;
pub mod parts;
pub mod read_back;
pub mod retry;
pub mod rows;
pub mod sighting;
pub mod walk;
