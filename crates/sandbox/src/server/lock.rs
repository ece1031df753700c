//! Owns the lock around the world. A thread that takes it twice panics; a plain mutex would hang.
//!
//! The mistake is easy to make: in `(sandbox.world().len(), sandbox.world().creates())` both guards
//! live until the end of the expression.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};

use crate::world::World;

/// A world for one at a time.
#[derive(Debug)]
pub(crate) struct Lock {
    world: Mutex<World>,
    holder: Mutex<Option<ThreadId>>,
}

/// The world, to look at and to change. Nobody else has it meanwhile; do not keep it across an `await`.
#[derive(Debug)]
pub struct WorldGuard<'a> {
    world: MutexGuard<'a, World>,
    holder: &'a Mutex<Option<ThreadId>>,
}

impl Lock {
    pub(crate) fn new(world: World) -> Self {
        Self { world: Mutex::new(world), holder: Mutex::new(None) }
    }

    #[track_caller]
    pub(crate) fn lock(&self) -> WorldGuard<'_> {
        let me = thread::current().id();
        assert!(
            *held(&self.holder) != Some(me),
            "this thread has the sandbox's world already: take it once an expression, and not across an await"
        );
        let world = held(&self.world);
        *held(&self.holder) = Some(me);
        WorldGuard { world, holder: &self.holder }
    }
}

/// A test that failed with the lock in its hands must not take the other tests' answers with it.
fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Deref for WorldGuard<'_> {
    type Target = World;

    fn deref(&self) -> &World {
        &self.world
    }
}

impl DerefMut for WorldGuard<'_> {
    fn deref_mut(&mut self) -> &mut World {
        &mut self.world
    }
}

impl Drop for WorldGuard<'_> {
    fn drop(&mut self) {
        *held(self.holder) = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;

    #[test]
    #[should_panic(expected = "take it once an expression")]
    fn asking_twice_on_one_thread_is_refused_in_words() {
        let lock = Lock::new(World::new(&Options::default()));
        assert_eq!(lock.lock().len(), lock.lock().len());
    }

    #[test]
    fn threads_take_turns() {
        let lock = Lock::new(World::new(&Options { customers: 0, ..Options::default() }));
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        lock.lock().create(serde_json::json!({}));
                    }
                });
            }
        });
        assert_eq!(lock.lock().len(), 200);
    }
}
