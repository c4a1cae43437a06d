//! The panic hook.

use super::auto;
use crate::clock;
use crate::snapshot::Ending;
use std::panic;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// The first panics are always exported. A program that catches them in a loop is to spend at most a
/// twentieth of its time on further ones.
const ALWAYS: u32 = 8;
const SHARE: u64 = 20;

static EXPORTED: AtomicU32 = AtomicU32::new(0);
/// When the next export is due; a time of the clock.
static DUE: AtomicU64 = AtomicU64::new(0);

/// Installs the hook, once. The hook that was there runs after ours.
pub fn watch() {
    static ONCE: Once = Once::new();
    // A thread that panics must not change the hook; a later call will.
    if std::thread::panicking() {
        return;
    }
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            export();
            before(info);
        }));
    });
}

fn export() {
    let Some(paths) = auto::paths() else { return };
    let start = clock::now();
    if EXPORTED.fetch_add(1, Ordering::Relaxed) >= ALWAYS && start < DUE.load(Ordering::Relaxed) {
        return;
    }
    auto::export(&paths.at_panic(), Ending::Panic);
    let end = clock::now();
    DUE.store(end + (end - start) * SHARE, Ordering::Relaxed);
}
