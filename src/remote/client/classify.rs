//! Classifies a failed exchange or an error answer: its cause, and a sentence for people.

use reqwest::header::{HeaderMap, LOCATION};

use super::{Answer, Http};
use crate::remote::Beginning;
use crate::remote::error::{ApiError, Call, Cause, Certificate, RemoteError, Step};
use crate::remote::wire::{self, IsOurs};

/// LONGEST_TARGET controls how many characters of a redirect's target are shown.
const LONGEST_TARGET: usize = 200;

/// Codes by which a card is refused, though the status says 502.
const CARD_REFUSALS: [&str; 4] = ["card_declined", "card_expired", "exceeds_limit", "bad_verification_value"];

impl Http {
    pub(super) fn error_of(&self, call: &Call, answer: &Answer) -> RemoteError {
        let (told, ours) = wire::error(answer.status, &answer.body);
        let mask = |text: Option<String>| text.map(|text| self.masker.text(&text));
        let told =
            ApiError { code: mask(told.code), message: mask(told.message), param: mask(told.param), ..told };
        let retry_after = self.retry_after(&answer.headers);
        let cause = match (answer.status, ours) {
            (401, IsOurs::Yes) => Cause::KeyRefused(told),
            // A 403 on one customer or one write says nothing about the key; see `Cause::KeyRefused`.
            (403, IsOurs::Yes) if matches!(call, Call::List { .. }) => Cause::KeyRefused(told),
            (429, _) => Cause::Throttled(told),
            (503, _) if retry_after.is_some() => Cause::Throttled(told),
            // What the bank says of a card comes as a bad gateway, and is its last word too.
            (502, _) if told.code.as_deref().is_some_and(|code| CARD_REFUSALS.contains(&code)) => {
                Cause::Rejected(told)
            }
            // 408 and 409 pass; any other 4xx of the API itself is its last word.
            (408 | 409, _) => Cause::Unexpected(told),
            (400..=499, IsOurs::Yes) => Cause::Rejected(told),
            (300..=399, _) => {
                Cause::Redirected { status: told.status, to: self.redirect_target(&answer.headers) }
            }
            (200..=299, _) => Cause::Unusable(format!("answered HTTP {} where 200 is due", told.status)),
            _ => Cause::Unexpected(told),
        };
        let retry_after = retry_after.map(|wanted| self.limiter.pause(wanted));
        RemoteError { call: call.clone(), cause, retry_after }
    }

    /// Where a redirect leads, as the server writes it.
    pub(super) fn redirect_target(&self, headers: &HeaderMap) -> Option<String> {
        let location = String::from_utf8_lossy(headers.get(LOCATION)?.as_bytes()).into_owned();
        let shown: String = self.masker.text(&location).chars().take(LONGEST_TARGET).collect();
        Some(shown).filter(|shown| !shown.is_empty())
    }

    /// A failed exchange in words: the URL is left out (the call is named already), the whole chain of causes is kept. A rejected
    /// certificate is named by the host that should have been proven.
    pub(super) fn said(&self, step: Step, error: reqwest::Error) -> String {
        let error = error.without_url();
        let host = self.base_url.host_str().unwrap_or_default();
        let wrong = match step {
            Step::Tls(Certificate::Untrusted) => "not trusted",
            Step::Tls(Certificate::Untimely) => "not valid now",
            _ if error.is_timeout() => return "it took too long".to_owned(),
            _ => return chain(&error),
        };
        let why = tls_in(&error).map(ToString::to_string).unwrap_or_default();
        format!("the certificate of {host} is {wrong} ({why})")
    }
}

/// How far a failed exchange came.
pub(super) fn step_of(error: &reqwest::Error, is_proxied: bool) -> Step {
    if let Some(tls) = tls_in(error) {
        return Step::Tls(certificate_in(tls));
    }
    match error.is_connect() {
        true if is_proxied => Step::Proxy,
        // The client tells this in words alone.
        true if chain(error).contains("dns error") => Step::Name,
        true => Step::Connection,
        false => Step::Answer,
    }
}

/// TLS's own error among the causes.
pub(super) fn tls_in<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    // An I/O error keeps what it was made of to itself: its `source` is what comes after that.
    let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    match error.downcast_ref() {
        None => inner.and_then(|inner| tls_in(inner)).or_else(|| error.source().and_then(tls_in)),
        found => found,
    }
}

pub(super) fn certificate_in(error: &rustls::Error) -> Certificate {
    use rustls::CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
    match error {
        rustls::Error::InvalidCertificate(
            Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. },
        ) => Certificate::Untimely,
        rustls::Error::InvalidCertificate(_) => Certificate::Untrusted,
        _ => Certificate::Unchecked,
    }
}

pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

/// A page that is too long: to be read in parts where it is a list, otherwise something that is not the API.
pub(super) fn too_large(limit: usize, begun: Option<Beginning>) -> Cause {
    let limit_kib = limit >> 10;
    match begun {
        Some(begun) => Cause::TooLarge { limit_kib, begun },
        None => Cause::Unusable(format!("the answer is larger than {limit_kib} KiB, and not a list")),
    }
}

#[cfg(test)]
mod tests;
