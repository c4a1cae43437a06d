//! Functions that are known to call a hooked function themselves: the C++ library's `operator new`.
//!
//! Such a call inside of a hook is told from others without unwinding: it returns into one of these
//! functions, and lies so close below the outer hook's frame that no signal frame fits in between.

use core::sync::atomic::{AtomicUsize, Ordering};

const MOST: usize = 16;
/// A signal frame takes at least 1,080 bytes (red zone, FXSAVE area, registers).
const NEAR: usize = 896;

static RANGES: [(AtomicUsize, AtomicUsize); MOST] =
    [const { (AtomicUsize::new(0), AtomicUsize::new(0)) }; MOST];
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// Adds a function by its address and an upper bound of its size.
pub fn add_forwarder(address: usize, size: usize) {
    if RANGES.iter().any(|range| range.0.load(Ordering::Relaxed) == address) {
        return;
    }
    let index = COUNT.fetch_add(1, Ordering::Relaxed);
    if let Some((start, end)) = RANGES.get(index) {
        end.store(address + size, Ordering::Relaxed);
        start.store(address, Ordering::Release);
    }
}

/// True for a call with its return address at `sp`, inside of the hook whose return address is at `outer`, that
/// a forwarding function makes.
pub fn is_forwarded(sp: usize, outer: usize) -> bool {
    if sp >= outer || outer - sp > NEAR {
        return false;
    }
    // SAFETY: `sp` is the address of the return address of a hook that was just entered.
    let caller = unsafe { *(sp as *const usize) };
    RANGES.iter().any(|(start, end)| {
        let start = start.load(Ordering::Acquire);
        start != 0 && caller > start && caller < end.load(Ordering::Relaxed)
    })
}
