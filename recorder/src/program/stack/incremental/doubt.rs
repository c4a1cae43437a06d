//! Stacks with guessed frames: which of them may be kept.
//!
//! Where code has no tables, a walk guesses by rbp. If that is no frame pointer, the words that it and all steps behind it have read
//! are none that an unwinder reads, and nothing says that they stay readable. That the words before them hold says nothing
//! either: it is the same wrong guess again. So what lies behind a guess is only compared where it is certain to be mapped:
//! on the thread's own stack ([`super::Bounds::is_own`]), of which everything from rsp on is. That is where nearly all
//! generated code runs.
//!
//! * A walk that reads anything else behind a guess is not kept and joins nothing.
//! * A walk that has guessed joins frames only if none of their words lies anywhere else.
//! * A walk that leaves the own stack takes with it what the memo knows by guesses: an entry's words may lead to a recorded
//!   frame, and that now leads elsewhere.

use super::{Recorded, Signals, Stack};
use crate::sys::memory::PAGE;

/// What has come of guesses. Zero bytes say that there were none.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Doubts {
    /// The walk has read behind a guess what may be unmapped.
    astray: bool,
    /// There was a guess since the memo was empty.
    pub remembered: bool,
}

impl Doubts {
    /// Whether the walk that ends here may be kept. The next one begins without doubts.
    pub fn are_settled(&mut self) -> bool {
        !core::mem::take(&mut self.astray)
    }
}

/// Whether the word below a frame, where its callee's return address is, lies in the same page as a slot: then that can be
/// read as long as the frame is there.
pub const fn same_page(slot: usize, sp: usize) -> bool {
    slot / PAGE == sp.wrapping_sub(8) / PAGE
}

impl Stack {
    /// After a step that was not plain: the innermost recorded frame that the walk may still join, `open` at the most.
    #[cold]
    #[inline(never)]
    pub(super) fn doubt(&mut self, signals: &mut Signals, open: *mut Recorded) -> *mut Recorded {
        let (guessed, own) = (signals.last.guessed, self.bounds.is_own());
        if !own && core::mem::take(&mut self.doubts.remembered) {
            self.memo().forget_all();
        }
        if !guessed {
            return open;
        }
        if own {
            self.doubts.remembered = true;
            if core::mem::replace(&mut signals.looked, true) || self.is_own_up_to(open) {
                return open;
            }
        } else {
            self.doubts.astray = true;
        }
        // The sentinel.
        self.storage.frames().wrapping_sub(1)
    }

    /// The state goes over to another thread, the calling one.
    pub fn adopt(&mut self) {
        if self.storage.capacity() == 0 {
            return;
        }
        if self.doubts.remembered && !self.bounds.is_of_thread() {
            // As if all modules had changed: the next walk begins anew.
            (self.generation, self.recalls) = (0, 0);
            self.forget();
        }
        self.bounds.know_own();
    }

    /// Whether all words of a frame and those further out lie on the thread's own stack, where the walk is.
    fn is_own_up_to(&self, frame: *const Recorded) -> bool {
        // SAFETY: a recorded frame or the sentinel, whose words are the first ones.
        unsafe {
            let words = self.storage.words();
            (0..(*frame).words()).all(|number| self.bounds.has((*words.add(number)).at))
        }
    }
}
