//! Time: nanoseconds of the monotonic clock since the library's first reading, and their epoch.
//!
//! Lifetimes are differences of the monotonic clock. The realtime clock is read once, so that times since the
//! Unix epoch never jump.

use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

struct Base {
    instant: Instant,
    epoch: u64,
}

static BASE: OnceLock<Base> = OnceLock::new();

fn base() -> &'static Base {
    BASE.get_or_init(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Base { instant: Instant::now(), epoch: u64::try_from(since.as_nanos()).unwrap_or(u64::MAX >> 1) }
    })
}

/// The time now. Never 0.
#[inline]
pub fn now() -> u64 {
    base().instant.elapsed().as_nanos() as u64 + 1
}

/// A time as ns since the Unix epoch.
pub fn epoch(time: u64) -> u64 {
    base().epoch.saturating_add(time)
}

/// The time of an epoch time; 1 for what lies before the first reading.
pub fn since_epoch(epoch: u64) -> u64 {
    epoch.saturating_sub(base().epoch).max(1)
}

/// When the clock was first read.
pub fn start() -> u64 {
    base();
    1
}
