//! A record of the acknowledged intents and of the requests at the API, to compare with what a disk
//! kept.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use komoju_sandbox::Sandbox;
use komoju_sync::store::log::changes::Head;
use serde_json::Value;

/// An intent with an acknowledged acceptance.
#[derive(Clone, Debug)]
pub struct Promise {
    pub id: String,
    pub op: &'static str,
    pub customer: Option<String>,
    pub body: Option<Value>,
}

/// The size of the record at a moment. Every entry below it is certain.
#[derive(Clone, Copy, Debug)]
pub struct Watermark {
    pub promises: usize,
    pub keys: usize,
    pub head: Option<Head>,
}

pub struct Ledger {
    spool: PathBuf,
    entries: Mutex<Entries>,
}

#[derive(Default)]
pub struct Entries {
    pub promises: Vec<Arc<Promise>>,
    /// The idempotency keys of the creates that reached the API.
    pub keys: Vec<Arc<str>>,
    /// The files in the spool directory. A file is accepted when it is gone.
    files: Vec<(String, Vec<Arc<Promise>>)>,
    head: Option<Head>,
    requests: usize,
}

impl Ledger {
    pub fn new(spool: &Path) -> Self {
        Self { spool: spool.to_owned(), entries: Mutex::default() }
    }

    pub fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap()
    }

    /// Records that a COMMIT returned.
    pub fn promise(&self, promise: Promise) {
        self.entries().promises.push(Arc::new(promise));
    }

    /// Records that a file was renamed into the spool directory.
    pub fn dropped(&self, file: &str, promises: Vec<Promise>) {
        self.entries().files.push((file.to_owned(), promises.into_iter().map(Arc::new).collect()));
    }

    /// Records the head of the log.
    pub fn log_is_at(&self, head: Head) {
        self.entries().head = Some(head);
    }

    /// Returns the entries below a watermark. Copies them, because threads that work on the
    /// database wait for this lock.
    pub fn below(&self, known: Watermark) -> (Vec<Arc<Promise>>, Vec<Arc<str>>) {
        let entries = self.entries();
        (entries.promises[..known.promises].to_vec(), entries.keys[..known.keys].to_vec())
    }

    /// Whether the file waits, or its acceptance has begun: its intents are not certain yet. A file
    /// moves from the first place to the second, so they are checked in this order.
    fn is_pending(&self, file: &str) -> bool {
        let is_claimed = || {
            let claims = std::fs::read_dir(self.spool.join(".claimed")).into_iter().flatten().flatten();
            claims.map(|claim| claim.path().join(file)).any(|path| path.exists())
        };
        self.spool.join(file).exists() || is_claimed()
    }

    /// Returns what is certain now. Read the disk after this call.
    pub fn known(&self, sandbox: &Sandbox) -> Watermark {
        let entries = &mut *self.entries();
        let (gone, there) = std::mem::take(&mut entries.files)
            .into_iter()
            .partition::<Vec<_>, _>(|(file, _)| !self.is_pending(file));
        entries.files = there;
        entries.promises.extend(gone.into_iter().flat_map(|(_, promises)| promises));
        let world = sandbox.world();
        for seen in &world.requests()[entries.requests..] {
            if seen.method == "POST" {
                // A repeated key is the same create.
                let key = seen
                    .header("x-komoju-idempotency")
                    .filter(|key| !entries.keys.iter().any(|known| **known == **key));
                entries.keys.extend(key.map(Arc::from));
            }
        }
        entries.requests = world.requests().len();
        Watermark { promises: entries.promises.len(), keys: entries.keys.len(), head: entries.head }
    }
}
