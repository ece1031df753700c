//! Faults: which requests they match, what they do, and how often they fired.
//!
//! A fault is data, the same in-process and as JSON. Faults are checked in the order of injection.
//! Each fault that matches fires, until one replaces the answer. Later faults are not checked, so
//! inject delays first. Prefer small effects that can be combined.

mod armed;
pub(crate) mod drift;
mod effect;
mod fault;
mod replacement;
pub(crate) mod shape;
mod terms;

pub(crate) use armed::{ArmedFault, Faults, Fired, RequestFacts};
pub use effect::FaultEffect;
pub(crate) use effect::milliseconds;
pub use fault::{Fault, FaultId, FaultedCall, Match};
pub use terms::{Drift, Echo, Ending, FaultedWork, Payload, RedirectTarget, Region};
