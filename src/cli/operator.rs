//! The operator's name, which is recorded with a decision.

/// Returns the name of the user that runs this command: the caller of `sudo`, if there is one.
pub(super) fn operator_name() -> String {
    let named = |name| std::env::var(name).ok().filter(|name| !name.is_empty());
    let by_number = || {
        let process = std::fs::metadata("/proc/self").ok()?;
        Some(format!("uid {}", std::os::unix::fs::MetadataExt::uid(&process)))
    };
    named("SUDO_USER").or_else(|| named("USER")).or_else(by_number).unwrap_or_else(|| "unknown".to_owned())
}
