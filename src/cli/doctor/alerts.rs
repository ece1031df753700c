//! Whether the service can execute the program that `alerts.command` names. `doctor` never starts
//! it: that would send an alert.
//!
//! The kernel's own errors mislead: if the interpreter of a script is missing, it reports that the
//! script is missing.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{StatVfsMountFlags, statvfs};

use super::access::{Ownership, READ, SEARCH, User};
use super::{DoctorFinding, Exit, quoted};

const CHECK: &str = "alerts";

/// FIRST_BYTES is how much the kernel reads of a program to find its interpreter (BINPRM_BUF_SIZE).
const FIRST_BYTES: u64 = 256;

/// USUAL_PATH is where the daemon looks for programs if its own PATH is not set.
const USUAL_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// HIDDEN names the directories that the packaged units hide from the service (ProtectHome=,
/// PrivateTmp=).
const HIDDEN: [&str; 5] = ["/home", "/root", "/run/user", "/tmp", "/var/tmp"];

/// Why a program cannot be executed, as a predicate, and what to do about it.
#[derive(Debug, PartialEq, Eq)]
struct Obstacle {
    why: String,
    advice: String,
}

fn obstacle<T>(why: impl Into<String>, advice: impl Into<String>) -> Result<T, Obstacle> {
    Err(Obstacle { why: why.into(), advice: advice.into() })
}

/// Checks the program as the service's user would execute it.
pub(super) fn check(program: &Path, service: &User) -> DoctorFinding {
    match examine(program, service) {
        Ok(()) => DoctorFinding::ok(CHECK, format!("{} can be run", program.display())),
        Err(Obstacle { why, advice }) => DoctorFinding::fail(
            CHECK,
            Exit::Failed,
            format!("alerts.command: {} {why}", program.display()),
            advice,
        ),
    }
}

fn examine(program: &Path, service: &User) -> Result<(), Obstacle> {
    let file = executable(program, service, "put the program there, or name another one")?;
    let Some(start) = first_bytes(program) else { return Ok(()) };
    if start.starts_with(b"\x7fELF") {
        return Ok(());
    }
    let Some(line) = start.strip_prefix(b"#!") else {
        return obstacle(
            "is neither a binary nor a script with an interpreter: its first line does not begin with #!",
            "make its first line #!/bin/sh, or name the interpreter first: command = [\"/bin/sh\", \"/path/of/script\"]",
        );
    };
    // The interpreter opens the script, so its mode alone is not enough.
    if !service.may(READ, &file) {
        let why = format!("cannot be read by {}, which a script needs", service.name);
        return obstacle(why, format!("chmod a+r {}", quoted(program)));
    }
    examine_interpreter(line.split(|byte| *byte == b'\n').next().unwrap_or_default(), program, service)
}

/// Checks what the first line of a script names, after its `#!`.
fn examine_interpreter(line: &[u8], script: &Path, service: &User) -> Result<(), Obstacle> {
    if line.ends_with(b"\r") {
        let advice = format!("sed -i 's/\\r$//' {}", quoted(script));
        return obstacle("has Windows line ends, so that its interpreter is not found", advice);
    }
    let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let Some(interpreter) = words.next() else {
        return obstacle("names no interpreter behind #!", "make its first line #!/bin/sh");
    };
    let interpreter = Path::new(OsStr::from_bytes(interpreter));
    let correct = format!("install it, or correct the first line of {}", quoted(script));
    executable(interpreter, service, &correct).map_err(|found| Obstacle {
        why: format!("needs {}, which {}", interpreter.display(), found.why),
        ..found
    })?;
    let name = words.next().filter(|name| !name.starts_with(b"-") && !name.contains(&b'='));
    let Some(name) = name.filter(|_| interpreter.ends_with("env")) else { return Ok(()) };
    let name = Path::new(OsStr::from_bytes(name));
    if USUAL_PATH.split(':').any(|at| executable(&Path::new(at).join(name), service, "").is_ok()) {
        return Ok(());
    }
    obstacle(format!("needs {}, which is not in {USUAL_PATH}", name.display()), correct)
}

/// Checks whether the service reaches a file, and whether its mode and file system let the service
/// execute it.
fn executable(program: &Path, service: &User, missing: &str) -> Result<Ownership, Obstacle> {
    let file = match std::fs::metadata(program) {
        Ok(file) if file.is_file() => file,
        Ok(_) => return obstacle("is no file", "name a program"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return obstacle("does not exist", missing),
        Err(error) => return obstacle(format!("cannot be used: {error}"), missing),
    };
    // Links are followed, because the place of the file itself counts.
    let real = program.canonicalize().unwrap_or_else(|_| program.to_owned());
    if service.is_packaged && HIDDEN.iter().any(|hidden| real.starts_with(hidden)) {
        let why = "is hidden from the service, because its unit sets ProtectHome= and PrivateTmp=";
        return obstacle(why, "move it to /usr/local/bin");
    }
    if let Some(closed) = closed_directory(&real, service) {
        return obstacle(
            format!("cannot be reached by {}: {} is closed", service.name, closed.display()),
            format!("chmod o+x {}, or move the program to /usr/local/bin", quoted(&closed)),
        );
    }
    let owned = Ownership::of(&file);
    // Root too can execute only what some user may execute.
    if owned.mode & 0o111 == 0 || !service.may(SEARCH, &owned) {
        return obstacle(
            format!("cannot be run by {} (mode {:04o})", service.name, owned.mode),
            format!("chmod +x {}, or give it to a group that {} is in", quoted(program), service.name),
        );
    }
    if is_noexec(&real) {
        return obstacle("is on a file system that is mounted noexec", "move it to /usr/local/bin");
    }
    Ok(owned)
}

fn is_noexec(file: &Path) -> bool {
    statvfs(file).is_ok_and(|mount| mount.f_flag.contains(StatVfsMountFlags::NOEXEC))
}

/// Returns the first directory above a file that the service cannot search.
fn closed_directory(file: &Path, service: &User) -> Option<PathBuf> {
    let mut above: Vec<&Path> = file.ancestors().skip(1).collect();
    above.reverse();
    let is_closed = |directory: &&&Path| {
        std::fs::metadata(directory).is_ok_and(|found| !service.may(SEARCH, &Ownership::of(&found)))
    };
    above.iter().find(is_closed).map(|closed| closed.to_path_buf())
}

/// Reads the first bytes of a file; `None` if the user of this command may not read it.
fn first_bytes(program: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(program).ok()?.take(FIRST_BYTES).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::super::access::tests::service;
    use super::*;

    struct ProgramDirectory(tempfile::TempDir);

    impl ProgramDirectory {
        fn new() -> Self {
            let place = Self(tempfile::TempDir::new().unwrap());
            place.mode("", 0o755);
            place
        }

        fn mode(&self, name: &str, mode: u32) {
            fs::set_permissions(self.0.path().join(name), Permissions::from_mode(mode)).unwrap();
        }

        fn file(&self, content: &str, mode: u32) -> PathBuf {
            let path = self.0.path().join("program");
            fs::write(&path, content).unwrap();
            self.mode("program", mode);
            path
        }
    }

    /// The service's user without the packaged unit, which hides temporary files.
    fn user() -> User {
        User { is_packaged: false, ..service() }
    }

    fn why(program: &Path) -> String {
        examine(program, &user()).map_or_else(|obstacle| obstacle.why, |()| "can be run".to_owned())
    }

    #[test]
    fn script_that_the_kernel_does_not_execute_is_detected() {
        let place = ProgramDirectory::new();
        for (content, mode, expected) in [
            ("#!/bin/sh\ncat\n", 0o755, "can be run"),
            ("#! /bin/sh -e\ncat\n", 0o755, "can be run"),
            ("#!/usr/bin/env sh\n", 0o755, "can be run"),
            ("#!/usr/bin/env -S sh -e\n", 0o755, "can be run"),
            ("\u{7f}ELF and more", 0o711, "can be run"),
            ("cat\n", 0o755, "is neither a binary nor a script with an interpreter"),
            ("", 0o755, "is neither a binary nor a script with an interpreter"),
            ("#!/bin/sh\r\ncat\r\n", 0o755, "has Windows line ends"),
            ("#!/no/such/sh\n", 0o755, "needs /no/such/sh, which does not exist"),
            ("#!\n", 0o755, "names no interpreter"),
            ("#!/etc/passwd\n", 0o755, "needs /etc/passwd, which cannot be run by komoju-sync"),
            ("#!/usr/bin/env nosuch\n", 0o755, "needs nosuch, which is not in /usr/local/sbin"),
            ("#!/bin/sh\n", 0o711, "cannot be read by komoju-sync, which a script needs"),
            ("#!/bin/sh\n", 0o700, "cannot be run by komoju-sync (mode 0700)"),
            ("#!/bin/sh\n", 0o644, "cannot be run by komoju-sync (mode 0644)"),
        ] {
            let shown = why(&place.file(content, mode));
            assert!(shown.starts_with(expected), "{content:?} {mode:o}: {shown}");
        }
    }

    #[test]
    fn script_that_the_service_does_not_reach_is_detected() {
        let place = ProgramDirectory::new();
        let program = place.file("#!/bin/sh\n", 0o755);
        place.mode("", 0o700);
        assert!(why(&program).contains("is closed"), "{}", why(&program));
        place.mode("", 0o755);
        assert_eq!(why(&place.0.path().join("nothing")), "does not exist");
        assert_eq!(why(place.0.path()), "is no file");
        let hidden = HIDDEN.iter().any(|hidden| program.starts_with(hidden));
        assert_eq!(examine(&program, &service()).is_err(), hidden, "the unit hides temporary files");
    }

    #[test]
    fn noexec_mount_is_detected() {
        let mounts = fs::read_to_string("/proc/mounts").unwrap();
        let options = |at: &str| -> Option<bool> {
            let line = mounts.lines().rfind(|line| line.split(' ').nth(1) == Some(at))?;
            Some(line.split(' ').nth(3)?.split(',').any(|option| option == "noexec"))
        };
        for at in ["/", "/proc", "/dev/shm"] {
            if let Some(expected) = options(at) {
                assert_eq!(is_noexec(Path::new(at)), expected, "{at}");
            }
        }
    }
}
