//! Whose word it is that a command carries.

/// Who runs this command: the person behind `sudo`, where there is one.
pub(super) fn operator_name() -> String {
    let named = |name| std::env::var(name).ok().filter(|who| !who.is_empty());
    let by_number = || {
        let process = std::fs::metadata("/proc/self").ok()?;
        Some(format!("uid {}", std::os::unix::fs::MetadataExt::uid(&process)))
    };
    named("SUDO_USER").or_else(|| named("USER")).or_else(by_number).unwrap_or_else(|| "unknown".to_owned())
}
