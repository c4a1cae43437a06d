//! Whether what a program is started with can be read: the kernel answers EFAULT to a pointer that leads nowhere, and so it
//! is to stay.

use super::Strings;
use crate::sys::memory::{self, PAGE};
use crate::sys::seal;
use core::ffi::c_char;

/// Pages that were asked about last.
#[derive(Default)]
struct Known(Option<usize>);

impl Known {
    fn is_readable(&mut self, address: usize) -> bool {
        let page = address & !(PAGE - 1);
        if self.0 != Some(page) && memory::is_readable(page) {
            self.0 = Some(page);
        }
        self.0 == Some(page)
    }
}

/// Whether a string begins in memory. (Where nobody can be asked, it is believed.)
#[must_use]
pub fn is_text(text: *const c_char) -> bool {
    seal::forbids() || Known::default().is_readable(text as usize)
}

/// Whether all strings of an array, and the array itself, begin in memory; null is an empty one.
///
/// # Safety
/// Where the array is in memory, it has a null pointer at its end, or memory ends before.
pub unsafe fn are_strings(array: Strings) -> bool {
    if array.is_null() || seal::forbids() {
        return true;
    }
    let (mut entries, mut texts) = (Known::default(), Known::default());
    for index in 0.. {
        let entry = array.wrapping_add(index);
        if !entries.is_readable(entry as usize) || !entries.is_readable(entry as usize + 7) {
            return false;
        }
        // SAFETY: its first and last bytes can be read.
        let text = unsafe { entry.read_unaligned() };
        if text.is_null() {
            return true;
        }
        if !texts.is_readable(text as usize) {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::ptr::{null, without_provenance};

    #[test]
    fn what_leads_nowhere_is_told() {
        let sound = [c"A=1".as_ptr(), c"B=2".as_ptr(), null()];
        let unsound = [c"A=1".as_ptr(), without_provenance(1), null()];
        // SAFETY: arrays with a null pointer at their ends, and addresses where nothing is.
        unsafe {
            assert!(are_strings(null()) && are_strings(sound.as_ptr()));
            assert!(!are_strings(unsound.as_ptr()) && !are_strings(without_provenance(8)));
            assert!(!are_strings(without_provenance(usize::MAX - 3)));
        }
        assert!(is_text(c"/bin/true".as_ptr()) && !is_text(without_provenance(1)));
    }
}
