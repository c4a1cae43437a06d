//! A thread's states, carried over a fork where the kernel may not be asked to keep them ([`crate::sys::seal`]): the parent copies
//! them aside, and its child copies them back into the memory that was wiped.
//!
//! ```text
//! address | bytes | contents ... | address | bytes | contents ... | 0
//! ```
//!
//! One thread at a time. Where another one forks as well, or there is no room, the child goes without.

use super::thread::ThreadState;
use super::tls;
use crate::sys::memory;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

/// Address space; only what is used is ever touched.
const ROOM: usize = 16 << 20;
const WORD: usize = size_of::<usize>();

/// Private memory that is not wiped.
static AREA: AtomicPtr<usize> = AtomicPtr::new(null_mut());
/// The innermost state of the thread whose states are aside; 0: nobody's.
static WHOSE: AtomicUsize = AtomicUsize::new(0);

/// Finds memory, while it can be asked for.
pub fn prepare() {
    if AREA.load(Ordering::Acquire).is_null()
        && let Ok(area) = memory::map_private(ROOM)
    {
        AREA.store(area.cast(), Ordering::Release);
    }
}

/// Copies states aside, from the innermost on; for [`back`], until [`done`].
///
/// # Safety
/// They are the calling thread's.
pub unsafe fn aside(states: impl Iterator<Item = *mut ThreadState>) {
    let (mut at, mut left) = (AREA.load(Ordering::Acquire), ROOM - WORD);
    if at.is_null() {
        return;
    }
    for (index, state) in states.enumerate() {
        if index == 0
            && WHOSE.compare_exchange(0, state as usize, Ordering::AcqRel, Ordering::Relaxed).is_err()
        {
            return;
        }
        // SAFETY: the state is mapped, and so is its memory; there is room.
        unsafe {
            for (start, bytes) in ThreadState::memory(state) {
                let bytes = bytes.next_multiple_of(WORD);
                if bytes == 0 || bytes + 2 * WORD > left {
                    continue;
                }
                at.write(start as usize);
                at.add(1).write(bytes);
                at.add(2).copy_from_nonoverlapping(start.cast(), bytes / WORD);
                at = at.add(2 + bytes / WORD);
                left -= bytes + 2 * WORD;
            }
            at.write(0);
        }
    }
}

/// In the child: copies back what its one thread had put aside.
pub fn back(innermost: usize) {
    let mut at = AREA.load(Ordering::Acquire);
    if at.is_null() || WHOSE.swap(0, Ordering::AcqRel) != innermost || !tls::is_state(innermost) {
        return;
    }
    // SAFETY: written by `aside`; the places are the thread's own memory, which is still mapped.
    unsafe {
        while *at != 0 {
            let (start, words) = (*at as *mut usize, *at.add(1) / WORD);
            start.copy_from_nonoverlapping(at.add(2), words);
            at = at.add(2 + words);
        }
    }
}

/// In the parent: the fork is over.
pub fn done(innermost: usize) {
    let _ = WHOSE.compare_exchange(innermost, 0, Ordering::AcqRel, Ordering::Relaxed);
}
