//! The text of `DATABASE.lock`: the holder, the last known head of the change log, and why the
//! holder waits.
//!
//! The text fills one block from its first write on, so that it can be changed while the disk is
//! full.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::store::log::changes::Head;

/// BYTES controls how much of the file is written and read. One block of any file system holds it.
const BYTES: usize = 1024;

/// MAX_CHARACTERS controls how many characters of a text are kept.
const MAX_CHARACTERS: usize = 400;

/// A log and its head at some moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogMark {
    /// The log's id.
    pub log_id: String,
    /// Its last entry.
    pub head: Head,
}

/// The text of a lock file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::store) struct LockText {
    /// The last holder, and since when it held the lock, for a reader of the file.
    pub(in crate::store) holder: String,
    /// The holder's command, such as `run`.
    pub(in crate::store) command: Option<String>,
    /// The holder's process id.
    pub(in crate::store) process: Option<u32>,
    /// The head of the change log when it was last written here. The log may have grown since.
    pub(in crate::store) log: Option<LogMark>,
    /// Why the holder cannot use the database for now.
    pub(in crate::store) trouble: Option<String>,
}

impl LockText {
    /// Reads the text. A part in an unknown form counts as missing.
    pub(in crate::store) fn read(file: &File) -> Self {
        let mut bytes = vec![0; BYTES];
        let read = file.read_at(&mut bytes, 0).unwrap_or(0);
        bytes.truncate(read);
        Self::parse(&String::from_utf8_lossy(&bytes))
    }

    fn parse(text: &str) -> Self {
        let mut lines = text.lines();
        let holder = lines.next().map(one_line).unwrap_or_default();
        let mut parsed = Self { holder, ..Self::default() };
        for line in lines {
            match line.split_once(' ') {
                Some(("command", command)) => parsed.command = Some(command.to_owned()),
                Some(("process", process)) => parsed.process = process.parse().ok(),
                Some(("log", mark)) => {
                    parsed.log = mark.split_once(' ').and_then(|(log_id, head)| {
                        Some(LogMark { log_id: log_id.to_owned(), head: head.parse().ok()? })
                    });
                }
                Some(("waits", why)) => parsed.trouble = Some(one_line(why)),
                _ => {}
            }
        }
        parsed
    }

    /// Overwrites the text in the file.
    pub(in crate::store) fn write(&self, file: &File) -> io::Result<()> {
        file.write_all_at(self.format().as_bytes(), 0)
    }

    fn format(&self) -> String {
        let mut text = format!("{}\n", one_line(&self.holder));
        if let Some(command) = &self.command {
            text += &format!("command {}\n", one_line(command));
        }
        if let Some(process) = self.process {
            text += &format!("process {process}\n");
        }
        if let Some(LogMark { log_id, head }) = &self.log {
            text += &format!("log {log_id} {head}\n");
        }
        if let Some(why) = &self.trouble {
            let line = format!("waits {}\n", one_line(why));
            let room = BYTES.saturating_sub(text.len() + 1);
            text += &line[..line.floor_char_boundary(room)];
        }
        while text.len() < BYTES {
            text.push('\n');
        }
        text
    }
}

fn one_line(text: &str) -> String {
    text.trim().chars().filter(|c| !c.is_control()).take(MAX_CHARACTERS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lock_text_reads_back_and_the_old_form_names_its_holder() {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("lock");
        std::fs::write(&path, "`komoju-sync run` (process 7) since then").unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        let old = LockText::read(&file);
        assert_eq!(old.holder, "`komoju-sync run` (process 7) since then");
        assert_eq!((old.command, old.process, old.log, old.trouble), (None, None, None, None));
        let mut text = LockText {
            holder: "another".into(),
            command: Some("run".into()),
            process: Some(7),
            log: Some(LogMark { log_id: "ab".into(), head: Head { seq: 12, chain: [7; 32] } }),
            trouble: Some("no room\nleft".into()),
        };
        text.write(&file).unwrap();
        text.trouble = Some("no roomleft".into());
        assert_eq!(LockText::read(&file), text);
        // The holder makes the rest too long, and each length of it cuts a character elsewhere.
        for more in 0..3 {
            text.holder = "x".repeat(300 + more);
            text.trouble = Some("雪".repeat(1000));
            text.write(&file).unwrap();
            assert_eq!(file.metadata().unwrap().len(), BYTES as u64, "it never grows");
            assert_eq!(LockText::read(&file).log, text.log);
            assert!(std::fs::read(&path).unwrap().ends_with(b"\n"), "its last line ends with a newline");
        }
        text.trouble = None;
        text.write(&file).unwrap();
        assert_eq!(LockText::read(&file), text, "nothing of the longer one is left");
    }
}
