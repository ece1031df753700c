//! The webhook receiver: whether there is a usable secret, and which machines can reach the
//! address.

use std::io::ErrorKind;
use std::path::Path;

use super::access::Users;
use super::finding::DoctorFindings;
use super::{DoctorFinding, Exit, RUN_AS_ROOT, quoted};
use crate::cli::service_key::{OWNER_AND_MODE, ServiceKey};
use crate::config::Webhook;
use crate::secret::{SecretSource, WebhookSecret, WebhookSecretError, WebhookSecretWarning};

const CHECK: &str = "webhook";

/// Checks the address and the secret; nothing where no address is set. A command by hand has no
/// credential, so the file from which the unit takes the credential is read too.
pub(super) fn check(webhook: &Webhook, config_file: &Path, users: &Users) -> Vec<DoctorFinding> {
    let Some(listen) = &webhook.listen else { return Vec::new() };
    let unit_key = ServiceKey::of(config_file);
    let unit_file = unit_key.webhook_secret();
    let found = match WebhookSecret::find(webhook.secret_file.as_deref(), &|name| std::env::var_os(name)) {
        Err(WebhookSecretError::Nowhere) if unit_file.exists() => {
            WebhookSecret::find(Some(&unit_file), &|_| None)
        }
        found => found,
    };
    let mut findings = DoctorFindings::of(CHECK);
    if listen.is_public() {
        findings.warn(
            format!("webhook.listen = {listen} can be reached from other machines"),
            "webhooks hold customers' data, and this listener has no TLS: listen at 127.0.0.1, behind a proxy with TLS",
        );
    }
    match found {
        Ok((secret, source)) => classify(findings, &secret, &source, &listen.to_string()),
        Err(error) => {
            findings.extend([not_found(&error, &unit_file, users)]);
            findings.or_ok(|| error.to_string())
        }
    }
}

fn classify(
    mut findings: DoctorFindings,
    secret: &WebhookSecret,
    source: &SecretSource,
    listen: &str,
) -> Vec<DoctorFinding> {
    for warning in secret.warnings(source) {
        let advice = match &warning {
            WebhookSecretWarning::Short => {
                "make one by `openssl rand -hex 32`, and enter it in KOMOJU's dashboard and here".to_owned()
            }
            WebhookSecretWarning::OpenToAllUsers { path, .. } => format!("chmod o= {}", quoted(path)),
        };
        findings.warn(warning.to_string(), advice);
    }
    let place = source.place.path().map_or_else(|| source.to_string(), |path| path.display().to_string());
    let both = if secret.is_rotating() {
        "two secrets; remove the older one after the rotation"
    } else {
        "the secret"
    };
    findings.or_ok(|| format!("webhooks are received at {listen}; {place} holds {both}"))
}

fn not_found(error: &WebhookSecretError, unit_file: &Path, users: &Users) -> DoctorFinding {
    match error {
        WebhookSecretError::Nowhere => DoctorFinding::fail(
            CHECK,
            Exit::Usage,
            format!(
                "webhook.listen is set, and there is no secret for webhooks, also not in {}",
                unit_file.display()
            ),
            format!(
                "write the secret that the webhook has in KOMOJU's dashboard into {} ({OWNER_AND_MODE})",
                quoted(unit_file)
            ),
        ),
        WebhookSecretError::Unreadable { source, .. }
            if source.kind() == ErrorKind::PermissionDenied && users.me.uid != users.service.uid =>
        {
            DoctorFinding::fail(CHECK, Exit::Failed, error.to_string(), RUN_AS_ROOT)
        }
        WebhookSecretError::Unreadable { source, .. } => DoctorFinding::fail(
            CHECK,
            Exit::Usage,
            format!("{error}: {source}"),
            "write the webhook's secret into that file",
        ),
        WebhookSecretError::Unusable { .. } => DoctorFinding::fail(
            CHECK,
            Exit::Usage,
            error.to_string(),
            "copy the secret from KOMOJU's dashboard again",
        ),
    }
}
