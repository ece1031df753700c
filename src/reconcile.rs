//! The decisions: what an answer means for the mirror. Values in, values out; no I/O, no clock, no chance.
//!
//! ```text
//!   page of the list ─▶ paging    can it be believed, and which page comes next?
//!                       parts     how is it read where it is too large?
//!                       sighting  what does a listed customer change?
//!   end of a sweep   ─▶ evidence  who was not seen, and what is proven about them?
//!   a new key        ─▶ guard     does it read the same account?
//!   a failed request ─▶ retry     is it asked again, and when?
//! ```

pub mod busy_fields;
pub mod creates;
pub mod evidence;
pub mod guard;
pub mod outcome;
pub mod paging;
pub mod parts;
pub mod read_back;
pub mod retry;
pub mod rows;
pub mod sighting;
