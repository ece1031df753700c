//! The change log, the mirror that it folds to, and the passes that wrote both. Also what the
//! sweeps learned about the list, the events with their hints, and how many changes they reported
//! (recall).

pub mod busy_fields;
pub mod changes;
pub mod coverage;
pub mod hints;
pub mod holds;
pub mod lag;
pub mod list_state;
pub mod mirror;
pub mod passes;
pub mod recall;
pub mod unchanged;
pub mod unlisted;
pub mod unreadable;
pub mod verify;
