//! Faults: which requests they hit, what they do, and how often they did.
//!
//! A fault is data, the same in-process and as JSON. Faults are asked in the order they were injected; each that matches
//! fires, until one replaces the answer: behind that one nobody is asked, so put delays first. Small effects that combine
//! are preferred to large ones that know each other.

mod armed;
pub(crate) mod drift;
mod effect;
mod fault;
mod replacement;
pub(crate) mod shape;
mod terms;

pub(crate) use armed::{Armed, Asked, Faults, Fired};
pub use effect::Effect;
pub(crate) use effect::milliseconds;
pub use fault::{Call, Fault, FaultId, Match};
pub use terms::{Drift, Echo, Ending, Payload, Region, Whither, Work};
