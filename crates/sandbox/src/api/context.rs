//! What every call needs: time, readings, account, counters and the request.

use jiff::Timestamp;

use crate::account::{Reveal, SandboxAccount};
use crate::draws::Draws;
use crate::readings::{Locale, Readings, Source};
use crate::request::Request;

/// The first version of the API whose customers have a locale.
const LOCALE_SINCE: &str = "2025-01-28";

/// How many writes of requests took effect, in all accounts.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) creates: u64,
    pub(crate) updates: u64,
    pub(crate) deletes: u64,
}

/// The inputs of a call.
pub(crate) struct Context<'a> {
    pub(crate) now: Timestamp,
    pub(crate) readings: &'a Readings,
    pub(crate) account: &'a mut SandboxAccount,
    pub(crate) counts: &'a mut Counts,
    pub(crate) request: &'a Request,
    pub(crate) draws: Draws,
}

impl Context<'_> {
    /// Returns which fields an answer shows.
    pub(crate) fn reveal(&self, source: Source) -> Reveal {
        let locale = match self.readings.locale {
            Locale::Shown => true,
            Locale::Hidden => false,
            // Versions are dates, so the order of their texts is their order.
            Locale::ByVersion => {
                let version = self.request.header("x-komoju-api-version");
                version.is_some_and(|version| version >= LOCALE_SINCE)
            }
        };
        Reveal { source: source == Source::Shown, locale }
    }
}
