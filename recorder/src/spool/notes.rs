//! Notes about programs that can't be recorded, in the spool's header: where the process may no longer write into the recording's
//! directory (another user, another root), its own shared memory is still there. Who completes the trace makes files of
//! them.
//!
//! A forked child that can't make a spool of its own still has its parent's header mapped, and leaves its note there.

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use memscope_shared::spool::{HEADER_BYTES, header, note};

/// Address of the header that takes notes; 0 where there is none. A forked child keeps that of its parent.
static HEADER: AtomicUsize = AtomicUsize::new(0);

/// A note that was left.
#[derive(Clone, Copy, Debug)]
pub struct Kept(&'static AtomicU64);

/// From now on, notes go into this header.
///
/// # Safety
/// It is mapped for good.
pub unsafe fn go_to(header: *mut u8) {
    HEADER.store(header as usize, Ordering::Release);
}

/// Leaves a note about process `pid`: its text is that of a file. `None` where there is no room.
pub fn leave(pid: u32, text: &[u8]) -> Option<Kept> {
    let base = HEADER.load(Ordering::Acquire);
    // SAFETY: the header is mapped for good, page aligned, and its words are only used as atomics.
    let word = |offset: usize| unsafe { &*((base + offset) as *const AtomicU64) };
    if base == 0 {
        return None;
    }
    let text = &text[..text.len().min(note::MOST)];
    let bytes = (note::HEAD_BYTES + text.len()).next_multiple_of(8);
    let used = word(header::NOTES_USED);
    let mut at = used.load(Ordering::Relaxed);
    loop {
        let end = usize::try_from(at).ok()?.checked_add(bytes)?;
        if note::START + end > HEADER_BYTES {
            return None;
        }
        match used.compare_exchange_weak(at, end as u64, Ordering::AcqRel, Ordering::Relaxed) {
            Ok(_) => break,
            Err(now) => at = now,
        }
    }
    let start = note::START + at as usize;
    let place = (base + start + note::HEAD_BYTES) as *mut u8;
    // SAFETY: these bytes of the header were just taken by us alone.
    unsafe { place.copy_from_nonoverlapping(text.as_ptr(), text.len()) };
    let head = word(start);
    head.store((text.len() as u64) << 32 | u64::from(pid), Ordering::Release);
    Some(Kept(head))
}

impl Kept {
    /// Takes it back: nothing has become of the program.
    pub fn withdraw(self) {
        self.0.fetch_and(!u64::from(u32::MAX), Ordering::AcqRel);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn notes_lie_behind_each_other_until_there_is_no_room() {
        let page = crate::sys::memory::map_private(HEADER_BYTES).unwrap();
        // SAFETY: never unmapped.
        unsafe { go_to(page) };
        let first = leave(7, b"1\x002\0why").unwrap();
        assert!(leave(8, &[b'x'; 5000]).is_some());
        first.withdraw();
        let room = (0..1000).take_while(|_| leave(9, &[0; 100]).is_some()).count();
        assert!((1..40).contains(&room), "{room}");
        HEADER.store(0, Ordering::Relaxed);
        // SAFETY: mapped above; nobody else uses it.
        let bytes = unsafe { core::slice::from_raw_parts(page, HEADER_BYTES) };
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        assert_eq!(word(note::START), 7 << 32);
        assert_eq!(word(note::START + 16), (note::MOST as u64) << 32 | 8);
    }
}
