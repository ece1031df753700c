//! Whether the service can execute the program that `alerts.command` names. It is never started here: it would send an alert.
//!
//! The kernel's own errors mislead: for a script whose interpreter is missing it reports that the script is missing.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{StatVfsMountFlags, statvfs};

use super::access::{Owned, Person, READ, SEARCH};
use super::{Exit, Finding, quoted};

const CHECK: &str = "alerts";

/// What the kernel reads of a program to find its interpreter (BINPRM_BUF_SIZE).
const FIRST_BYTES: u64 = 256;

/// Where the daemon looks for programs when its own PATH is not set.
const USUAL_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Directories that the packaged units hide from the service (ProtectHome=, PrivateTmp=).
const HIDDEN: [&str; 5] = ["/home", "/root", "/run/user", "/tmp", "/var/tmp"];

/// Why a program cannot be executed, and what to do about it.
#[derive(Debug, PartialEq, Eq)]
struct Obstacle {
    why: String,
    advice: String,
}

/// Checks the program as the service's user would execute it.
pub(super) fn check(program: &Path, service: &Person) -> Finding {
    match examine(program, service) {
        Ok(()) => Finding::ok(CHECK, format!("{} can be run", program.display())),
        Err(Obstacle { why, advice }) => {
            Finding::fail(CHECK, Exit::Failed, format!("alerts.command: {} {why}", program.display()), advice)
        }
    }
}

fn examine(program: &Path, service: &Person) -> Result<(), Obstacle> {
    let elsewhere = "put the program there, or name another one";
    let file = executable(program, service, elsewhere)?;
    let Some(start) = first_bytes(program) else { return Ok(()) };
    if start.starts_with(b"\x7fELF") {
        return Ok(());
    }
    let Some(line) = start.strip_prefix(b"#!") else {
        return Err(Obstacle {
            why: "is neither a binary nor a script with an interpreter: its first line does not begin with #!".into(),
            advice: "make its first line #!/bin/sh, or name the interpreter first: command = [\"/bin/sh\", \"/path/of/script\"]"
                .into(),
        });
    };
    // The interpreter opens the script, so that its mode alone is not enough.
    if !service.may(READ, &file) {
        return Err(Obstacle {
            why: format!("cannot be read by {}, which a script needs", service.name),
            advice: format!("chmod a+r {}", quoted(program)),
        });
    }
    let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
    if line.ends_with(b"\r") {
        return Err(Obstacle {
            why: "has Windows line ends, so that its interpreter is not found".into(),
            advice: format!("sed -i 's/\\r$//' {}", quoted(program)),
        });
    }
    let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let Some(interpreter) = words.next() else {
        return Err(Obstacle {
            why: "names no interpreter behind #!".to_owned(),
            advice: "make its first line #!/bin/sh".to_owned(),
        });
    };
    let interpreter = Path::new(std::ffi::OsStr::from_bytes(interpreter));
    let of_script = |obstacle: Obstacle| Obstacle {
        why: format!("needs {}, which {}", interpreter.display(), obstacle.why),
        ..obstacle
    };
    let correct = format!("install it, or correct the first line of {}", quoted(program));
    executable(interpreter, service, &correct).map_err(of_script)?;
    match (interpreter.file_name(), words.next()) {
        (Some(env), Some(name)) if env == "env" && !name.starts_with(b"-") && !name.contains(&b'=') => {
            let name = Path::new(std::ffi::OsStr::from_bytes(name));
            let found =
                USUAL_PATH.split(':').any(|at| executable(&Path::new(at).join(name), service, "").is_ok());
            match found {
                true => Ok(()),
                false => Err(Obstacle {
                    why: format!("needs {}, which is not in {USUAL_PATH}", name.display()),
                    advice: correct,
                }),
            }
        }
        _ => Ok(()),
    }
}

/// Whether the service reaches a file and its mode and file system let the service execute it.
fn executable(program: &Path, service: &Person, missing: &str) -> Result<Owned, Obstacle> {
    let file = match std::fs::metadata(program) {
        Ok(file) => file,
        Err(error) => {
            let why = match error.kind() {
                io::ErrorKind::NotFound => "does not exist".to_owned(),
                _ => format!("cannot be used: {error}"),
            };
            return Err(Obstacle { why, advice: missing.to_owned() });
        }
    };
    if !file.is_file() {
        return Err(Obstacle { why: "is no file".to_owned(), advice: "name a program".to_owned() });
    }
    // Links are followed: what counts is where the file is.
    let real = program.canonicalize().unwrap_or_else(|_| program.to_owned());
    if service.is_packaged && HIDDEN.iter().any(|hidden| real.starts_with(hidden)) {
        return Err(Obstacle {
            why: "is hidden from the service, whose unit sets ProtectHome= and PrivateTmp=".to_owned(),
            advice: "move it to /usr/local/bin".to_owned(),
        });
    }
    if let Some(closed) = closed_directory(&real, service) {
        return Err(Obstacle {
            why: format!("cannot be reached by {}: {} is closed", service.name, closed.display()),
            advice: format!("chmod o+x {}, or move the program to /usr/local/bin", quoted(&closed)),
        });
    }
    let owned = Owned::of(&file);
    // Root too can execute only what some user may execute.
    if owned.mode & 0o111 == 0 || !service.may(SEARCH, &owned) {
        return Err(Obstacle {
            why: format!("cannot be run by {} (mode {:04o})", service.name, owned.mode),
            advice: format!(
                "chmod +x {}, or give it to a group that {} is in",
                quoted(program),
                service.name
            ),
        });
    }
    if is_noexec(&real) {
        return Err(Obstacle {
            why: "is on a file system that is mounted noexec".to_owned(),
            advice: "move it to /usr/local/bin".to_owned(),
        });
    }
    Ok(owned)
}

fn is_noexec(file: &Path) -> bool {
    statvfs(file).is_ok_and(|mount| mount.f_flag.contains(StatVfsMountFlags::NOEXEC))
}

/// The first directory above a file that the service cannot search.
fn closed_directory(file: &Path, service: &Person) -> Option<PathBuf> {
    let mut above: Vec<&Path> = file.ancestors().skip(1).collect();
    above.reverse();
    let is_closed = |directory: &&&Path| {
        std::fs::metadata(directory).is_ok_and(|found| !service.may(SEARCH, &Owned::of(&found)))
    };
    above.iter().find(is_closed).map(|closed| closed.to_path_buf())
}

/// The beginning of a file; `None` where the user of this command may not read it.
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

    struct Place(tempfile::TempDir);

    impl Place {
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
    fn user() -> Person {
        Person { is_packaged: false, ..service() }
    }

    fn why(program: &Path) -> String {
        examine(program, &user()).map_or_else(|obstacle| obstacle.why, |()| "can be run".to_owned())
    }

    #[test]
    fn script_that_the_kernel_does_not_execute_is_detected() {
        let place = Place::new();
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
            let told = why(&place.file(content, mode));
            assert!(told.starts_with(expected), "{content:?} {mode:o}: {told}");
        }
    }

    #[test]
    fn script_that_the_service_does_not_reach_is_detected() {
        let place = Place::new();
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
