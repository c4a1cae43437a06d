//! Notes about programs that can't be recorded, in the spool's header: where the process may no longer write into the recording's
//! directory (another user, another root), its own shared memory is still there. Who completes the trace makes files of
//! them.
//!
//! A forked child that can't make a spool of its own still has its parent's header mapped, and leaves its note there. Its parent may
//! have ended meanwhile: each side first does its part (leaves the note; closes the list), and then looks for the other's.

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use memscope_shared::spool::{HEADER_BYTES, header, note};

/// Address of the header that takes notes; 0 where there is none. A forked child keeps that of its parent.
static HEADER: AtomicUsize = AtomicUsize::new(0);

/// A note that was left: its first word, and what that says.
#[derive(Clone, Copy, Debug)]
pub struct Kept(&'static AtomicU64, u64);

/// From now on, notes go into this header.
///
/// # Safety
/// It is mapped for good.
pub unsafe fn go_to(header: *mut u8) {
    HEADER.store(header as usize, Ordering::Release);
}

/// The word at an offset of the header whose address is `base`.
///
/// # Safety
/// The header is mapped for good, and the offset, a multiple of 8, lies inside.
unsafe fn word(base: usize, offset: usize) -> &'static AtomicU64 {
    // SAFETY: as promised; its words are only used as atomics.
    unsafe { &*((base + offset) as *const AtomicU64) }
}

/// Leaves a note about process `pid`: its text is that of a file. `None` where there is no room, or nobody comes for it any more.
pub fn leave(pid: u32, text: &[u8]) -> Option<Kept> {
    let base = HEADER.load(Ordering::Acquire);
    if base == 0 {
        return None;
    }
    // SAFETY: mapped for good; what is asked for below lies inside.
    let word = |offset: usize| unsafe { word(base, offset) };
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
    let kept = Kept(word(start), (text.len() as u64) << 32 | u64::from(pid));
    kept.0.store(kept.1, Ordering::SeqCst);
    let is_late = word(header::NOTES_CLOSED).load(Ordering::SeqCst) != 0;
    (!is_late || !kept.take()).then_some(kept)
}

/// From now on no note is left in this process's header.
pub fn close() {
    let base = HEADER.load(Ordering::Acquire);
    if base != 0 {
        // SAFETY: mapped for good.
        unsafe { word(base, header::NOTES_CLOSED) }.store(1, Ordering::SeqCst);
    }
}

/// The notes that were left in this process's header, each with its process and its text.
pub fn all() -> impl Iterator<Item = (Kept, u32, &'static [u8])> {
    let base = HEADER.load(Ordering::Acquire);
    // SAFETY: mapped for good.
    let used = if base == 0 { 0 } else { unsafe { word(base, header::NOTES_USED) }.load(Ordering::Acquire) };
    let end = note::START.saturating_add(used as usize).min(HEADER_BYTES);
    let mut at = note::START;
    core::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        // SAFETY: mapped for good, and `at` a multiple of 8 below the end.
        let head = unsafe { word(base, at) };
        let said = head.load(Ordering::SeqCst);
        let (length, start) = ((said >> 32) as usize, at + note::HEAD_BYTES);
        // One that was not finished says no length, and hides those behind it.
        if length == 0 || start + length > HEADER_BYTES {
            return None;
        }
        at = (start + length).next_multiple_of(8);
        // SAFETY: inside the header, and written before its head.
        let text = unsafe { core::slice::from_raw_parts((base + start) as *const u8, length) };
        Some((Kept(head, said), said as u32, text))
    })
    .filter(|&(_, pid, _)| pid != 0)
}

impl Kept {
    /// Takes it back: nothing has become of the program.
    pub fn withdraw(self) {
        self.0.fetch_and(!u64::from(u32::MAX), Ordering::AcqRel);
    }

    /// Takes it for its file; false where somebody else was first.
    #[must_use]
    pub fn take(self) -> bool {
        let taken = self.1 & !u64::from(u32::MAX);
        self.0.compare_exchange(self.1, taken, Ordering::SeqCst, Ordering::SeqCst).is_ok()
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
        assert_eq!(
            all().map(|(_, pid, text)| (pid, text.len())).collect::<Vec<_>>(),
            [(7, 7), (8, note::MOST)]
        );
        first.withdraw();
        let room = (0..1000).take_while(|_| leave(9, &[0; 100]).is_some()).count();
        assert!((1..40).contains(&room), "{room}");
        let (kept, pid, _) = all().next().unwrap();
        assert_eq!((pid, kept.take(), kept.take()), (8, true, false));
        assert_eq!(all().count(), room);
        // SAFETY: a fresh page, never unmapped.
        unsafe { go_to(crate::sys::memory::map_private(HEADER_BYTES).unwrap()) };
        close();
        assert!(leave(7, b"late").is_none() && all().next().is_none());
        HEADER.store(0, Ordering::Relaxed);
        // SAFETY: mapped above; nobody else uses it.
        let bytes = unsafe { core::slice::from_raw_parts(page, HEADER_BYTES) };
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        assert_eq!(word(note::START), 7 << 32);
        assert_eq!(word(note::START + 16), (note::MOST as u64) << 32, "taken");
    }
}
