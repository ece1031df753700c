//! The lock around the world. A thread that takes it twice panics, where a plain mutex would block
//! without end.
//!
//! The mistake is easy to make: in `(sandbox.world().len(), sandbox.world().creates())` both guards
//! live until the end of the expression.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};

use crate::world::World;

/// The locked world.
#[derive(Debug)]
pub(crate) struct Lock {
    world: Mutex<World>,
    holder: Mutex<Option<ThreadId>>,
}

/// The world, for reading and changing it. No request is processed meanwhile. Do not keep it across
/// an `await`.
#[derive(Debug)]
pub struct WorldGuard<'a> {
    world: MutexGuard<'a, World>,
    holder: &'a Mutex<Option<ThreadId>>,
}

impl Lock {
    /// Returns an unlocked world.
    pub(crate) fn new(world: World) -> Self {
        Self { world: Mutex::new(world), holder: Mutex::new(None) }
    }

    /// Locks the world.
    #[track_caller]
    pub(crate) fn lock(&self) -> WorldGuard<'_> {
        let me = thread::current().id();
        assert!(
            *held(&self.holder) != Some(me),
            "this thread has locked the sandbox's world already: lock it once in an expression, and not across an await"
        );
        let world = held(&self.world);
        *held(&self.holder) = Some(me);
        WorldGuard { world, holder: &self.holder }
    }
}

/// Locks a mutex, also after a panic, so that a failed test does not make other tests fail.
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
    #[should_panic(expected = "lock it once in an expression")]
    fn second_lock_by_one_thread_panics_with_its_reason() {
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
