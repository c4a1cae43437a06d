//! What another thread has written into an array that was the environment a moment ago.
//!
//! libc gives that array back as soon as it needs a larger one, and the program may give back a string. So nothing of
//! it is read but through the kernel, which says where there is no memory any more; and what was read is only believed where
//! it makes sense: the array holds an entry that it held before (one was taken out, and others moved up), or a text that begins with the
//! name that stood in that place. Memory that libc has given to somebody else in between doesn't look like that.

use super::Strings;
use crate::sys::memory;
use core::ffi::c_char;
use core::sync::atomic::{AtomicPtr, Ordering};

const WORD: usize = size_of::<usize>();
/// A longer name is none that is known.
const NAME: usize = 256;

/// Where `from` has another entry by now than was `seen`, and `to` the one that was seen, puts that entry there, too; but not
/// `ours`.
///
/// # Safety
/// `seen` and `to` are arrays with a null pointer at their ends that stay. Nothing is asked of `from`.
pub unsafe fn carry(seen: Strings, from: Strings, to: *mut *const c_char, ours: *const c_char) {
    for index in 0.. {
        // SAFETY: as promised by the caller: none of the entries before was null; entries are only exchanged whole.
        let (was, slot) =
            unsafe { (*seen.add(index), AtomicPtr::from_ptr(to.add(index).cast::<*mut c_char>())) };
        if was.is_null() || slot.load(Ordering::Acquire).is_null() {
            return;
        }
        let Some(now) = entry(from, index).filter(|now| !now.is_null()) else { return };
        // SAFETY: as promised by the caller.
        let makes_sense = || unsafe { is_behind(seen, index, now) } || have_one_name(was, now);
        if was != ours && now != ours && now != was && makes_sense() {
            let now = now.cast_mut();
            let _ = slot.compare_exchange(was.cast_mut(), now, Ordering::AcqRel, Ordering::Acquire);
        }
    }
}

/// The entry of an array that may be gone.
fn entry(array: Strings, index: usize) -> Option<*const c_char> {
    let mut word = [0; WORD];
    let address = (array as usize).checked_add(index * WORD)?;
    (memory::copy(address, &mut word) == WORD).then(|| usize::from_ne_bytes(word) as *const c_char)
}

/// Whether `entry` stands in the array behind this index.
///
/// # Safety
/// The array has a null pointer at its end, behind the index.
unsafe fn is_behind(array: Strings, index: usize, entry: *const c_char) -> bool {
    // SAFETY: as promised by the caller.
    let behind = (index + 1..).map(|index| unsafe { *array.add(index) });
    behind.take_while(|found| !found.is_null()).any(|found| found == entry)
}

/// Whether both are texts that begin with the same name and an equals sign; each may be gone.
fn have_one_name(a: *const c_char, b: *const c_char) -> bool {
    let (mut one, mut other) = ([0; NAME], [0; NAME]);
    let names = (name(a, &mut one), name(b, &mut other));
    matches!(names, (Some(a), Some(b)) if a == b)
}

fn name(text: *const c_char, into: &mut [u8; NAME]) -> Option<&[u8]> {
    let n = memory::copy(text as usize, into);
    let end = into[..n].iter().position(|&byte| byte == b'=' || byte == 0)?;
    (end > 0 && into[end] == b'=').then(|| &into[..end])
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::ptr::null;

    fn pointers(strings: &[&core::ffi::CStr]) -> Vec<*const c_char> {
        strings.iter().map(|string| string.as_ptr()).chain([null()]).collect()
    }

    #[test]
    fn what_makes_sense_is_carried_over() {
        let (a, b, c, ours) = (c"A=1", c"B=1", c"C=1", c"LD_PRELOAD=x");
        let seen = pointers(&[a, b, ours, c]);
        let carried = |from: &[*const c_char]| {
            let mut to = seen.clone();
            // SAFETY: arrays with null pointers at their ends.
            unsafe { carry(seen.as_ptr(), from.as_ptr(), to.as_mut_ptr(), ours.as_ptr()) };
            to
        };
        assert_eq!(carried(&seen), seen);
        let new = c"B=other";
        assert_eq!(carried(&pointers(&[a, new, ours, c])), pointers(&[a, new, ours, c]));
        // One taken out.
        assert_eq!(carried(&pointers(&[b, ours, c]))[0], b.as_ptr());
        // Memory that is somebody else's by now.
        for nonsense in [8, usize::MAX - 7, c"D=1".as_ptr() as usize, c"B".as_ptr() as usize] {
            let mut from = seen.clone();
            from[1] = nonsense as *const c_char;
            assert_eq!(carried(&from), seen, "{nonsense:x}");
        }
        // An array that is gone.
        for gone in [8, usize::MAX - 15] {
            let mut to = seen.clone();
            // SAFETY: nothing is asked of that array.
            unsafe { carry(seen.as_ptr(), gone as Strings, to.as_mut_ptr(), ours.as_ptr()) };
            assert_eq!(to, seen);
        }
    }
}
