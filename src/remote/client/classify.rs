//! Classifies a failed request or an error answer: its cause, and a sentence for the operator.

use reqwest::header::{HeaderMap, LOCATION};

use super::{Answer, Http};
use crate::remote::TruncatedPage;
use crate::remote::error::{ApiCall, ApiError, CertificateFault, ErrorCause, RemoteError, RequestStage};
use crate::remote::wire::{self, IsOurs};

/// LONGEST_TARGET controls how many characters of the target of a redirect are shown.
const LONGEST_TARGET: usize = 200;

/// The error codes of a refused card. KOMOJU sends them with the status 502.
const CARD_REFUSALS: [&str; 4] = ["card_declined", "card_expired", "exceeds_limit", "bad_verification_value"];

impl Http {
    /// Returns the error that an answer means, with its texts masked. A `Retry-After` pauses the
    /// limiter.
    pub(super) fn error_of(&self, call: &ApiCall, answer: &Answer) -> RemoteError {
        let (told, ours) = wire::error(answer.status, &answer.body);
        let mask = |text: Option<String>| text.map(|text| self.masker.text(&text));
        let told =
            ApiError { code: mask(told.code), message: mask(told.message), param: mask(told.param), ..told };
        let retry_after = self.retry_after(&answer.headers);
        let cause = match (answer.status, ours) {
            (401, IsOurs::Yes) => ErrorCause::KeyRefused(told),
            // A 403 on one customer or one write says nothing about the key; see
            // `ErrorCause::KeyRefused`.
            (403, IsOurs::Yes) if matches!(call, ApiCall::List { .. }) => ErrorCause::KeyRefused(told),
            (429, _) => ErrorCause::Throttled(told),
            (503, _) if retry_after.is_some() => ErrorCause::Throttled(told),
            // A refused card has the status of a bad gateway. A retry would be refused again.
            (502, _) if told.code.as_deref().is_some_and(|code| CARD_REFUSALS.contains(&code)) => {
                ErrorCause::Rejected(told)
            }
            // 408 and 409 can pass. A retry after any other 4xx of the API would fail again.
            (408 | 409, _) => ErrorCause::Unexpected(told),
            (400..=499, IsOurs::Yes) => ErrorCause::Rejected(told),
            (300..=399, _) => {
                ErrorCause::Redirected { status: told.status, to: self.redirect_target(&answer.headers) }
            }
            (200..=299, _) => ErrorCause::Unusable(format!("answered HTTP {} where 200 is due", told.status)),
            _ => ErrorCause::Unexpected(told),
        };
        let retry_after = retry_after.map(|wanted| self.limiter.pause(wanted));
        RemoteError { call: call.clone(), cause, retry_after }
    }

    /// Returns the target of a redirect as the server writes it, masked and cut.
    pub(super) fn redirect_target(&self, headers: &HeaderMap) -> Option<String> {
        let location = String::from_utf8_lossy(headers.get(LOCATION)?.as_bytes()).into_owned();
        let shown: String = self.masker.text(&location).chars().take(LONGEST_TARGET).collect();
        Some(shown).filter(|shown| !shown.is_empty())
    }

    /// Returns why a request has failed: all causes, without the URL, because the message names the
    /// call. For a rejected certificate it names the host.
    pub(super) fn explain(&self, stage: RequestStage, error: reqwest::Error) -> String {
        let error = error.without_url();
        let host = self.base_url.host_str().unwrap_or_default();
        let wrong = match stage {
            RequestStage::Tls(CertificateFault::Untrusted) => "not trusted",
            RequestStage::Tls(CertificateFault::Untimely) => "not valid now",
            _ if error.is_timeout() => return "it took too long".to_owned(),
            _ => return chain(&error),
        };
        let why = tls_in(&error).map(ToString::to_string).unwrap_or_default();
        format!("the certificate of {host} is {wrong} ({why})")
    }
}

/// Returns the step at which a request has failed.
pub(super) fn step_of(error: &reqwest::Error, is_proxied: bool) -> RequestStage {
    if let Some(tls) = tls_in(error) {
        return RequestStage::Tls(certificate_in(tls));
    }
    match error.is_connect() {
        true if is_proxied => RequestStage::Proxy,
        // The client has no error type for name resolution, only this text.
        true if chain(error).contains("dns error") => RequestStage::Name,
        true => RequestStage::Connection,
        false => RequestStage::Answer,
    }
}

/// Returns the error of rustls among the causes.
pub(super) fn tls_in<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    // An I/O error contains another error that its `source` skips.
    let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    match error.downcast_ref() {
        None => inner.and_then(|inner| tls_in(inner)).or_else(|| error.source().and_then(tls_in)),
        found => found,
    }
}

/// Returns what is wrong with the server's certificate.
pub(super) fn certificate_in(error: &rustls::Error) -> CertificateFault {
    use rustls::CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
    match error {
        rustls::Error::InvalidCertificate(
            Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. },
        ) => CertificateFault::Untimely,
        rustls::Error::InvalidCertificate(_) => CertificateFault::Untrusted,
        _ => CertificateFault::Unchecked,
    }
}

/// Returns an error with all its causes, without repeated texts.
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

/// Returns the cause for an answer that is too long: a list to read in parts, or an answer that is
/// not from the API.
pub(super) fn too_large(limit: usize, begun: Option<TruncatedPage>) -> ErrorCause {
    let limit_kib = limit >> 10;
    match begun {
        Some(begun) => ErrorCause::TooLarge { limit_kib, page: begun },
        None => ErrorCause::Unusable(format!("the answer is larger than {limit_kib} KiB, and not a list")),
    }
}

#[cfg(test)]
mod tests;
