//! Who writes the trace of a process that has no thread of ours: its own threads, or the drainer, which is
//! `memscope-cli run` with the spool mapped. One at a time, and one word of the spool's header says who.
//!
//! ```text
//!        .-- BUSY <--.            claim          recall
//!        v           |  OPEN ----------> DRAINER -------> RECALLED
//!       OPEN --------'    \                 |                |
//!   (a thread writes)      \ recall         | let go         | let go (or found dead)
//!                           '-------------> OWN <------------'
//! ```
//!
//! A recall, or [`close`], takes `BUSY` to `OWN` as well: the thread that writes then finds no word to open again.
//!
//! A process begins in `OWN`, or in `BUSY` where a drainer may come. There is one claim at most: after it the word comes
//! to `OWN` and stays there, so whoever finds `OWN` knows that nobody else will ever write.
//!
//! Buffers have a word as well. While a drainer has the claim it alone takes a buffer from [`FULL`] to
//! [`DRAINED`], and only the process makes a drained one [`FREE`] and [`FILLING`] again; so what a drainer has found
//! to be filling or full stays that stream's until it says otherwise itself.

use core::sync::atomic::{AtomicU32, Ordering};

/// The process's threads write, for good.
pub const OWN: u32 = 0;
/// Nobody writes; a drainer may claim the trace.
pub const OPEN: u32 = 1;
/// A thread of the process writes; it is open again in a moment.
pub const BUSY: u32 = 2;
/// The drainer writes.
pub const DRAINER: u32 = 3;
/// The drainer writes and is asked to let go.
pub const RECALLED: u32 = 4;

/// A buffer that nobody uses.
pub const FREE: u32 = 0;
/// A thread fills it.
pub const FILLING: u32 = 1;
/// Its thread has left it to be written.
pub const FULL: u32 = 2;
/// The drainer has written it: the process may use it again.
pub const DRAINED: u32 = 3;

/// A word of 32 bits that two processes meet at.
pub trait Word {
    /// Reads it; what its writer did before comes before what the caller does next.
    fn get(&self) -> u32;
    /// Writes it, behind what the caller did before.
    fn set(&self, value: u32);
    /// Replaces `from`; false where it held something else.
    fn replace(&self, from: u32, to: u32) -> bool;
}

impl Word for AtomicU32 {
    fn get(&self) -> u32 {
        self.load(Ordering::Acquire)
    }
    fn set(&self, value: u32) {
        self.store(value, Ordering::Release);
    }
    fn replace(&self, from: u32, to: u32) -> bool {
        self.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

/// What came of an attempt to [`claim`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The caller is the drainer.
    Made,
    /// Try again in a moment.
    Later,
    /// The process writes itself, or another drainer does.
    Never,
}

/// The drainer's beginning.
pub fn claim(role: &impl Word) -> Claim {
    if role.replace(OPEN, DRAINER) {
        return Claim::Made;
    }
    if matches!(role.get(), OPEN | BUSY) { Claim::Later } else { Claim::Never }
}

/// The drainer's end; also said for it by the process, when it has found that the drainer is dead.
pub fn let_go(role: &impl Word) {
    // Between the two it may only have been recalled.
    let _ = role.replace(DRAINER, OWN) || role.replace(RECALLED, OWN);
}

/// Asks the drainer to let go, and lets none come any more. True where the process may write at once.
pub fn recall(role: &impl Word) -> bool {
    // A drainer may have come before it was closed; none comes after.
    close(role) || !role.replace(DRAINER, RECALLED) && role.get() == OWN
}

/// Lets no drainer come any more; one that has the claim keeps it. True where the process may write at once.
pub fn close(role: &impl Word) -> bool {
    // Threads of the process go from one to the other meanwhile.
    while !role.replace(OPEN, OWN) && !role.replace(BUSY, OWN) {
        if !matches!(role.get(), OPEN | BUSY) {
            break;
        }
    }
    role.get() == OWN
}

/// Whether a drainer has the claim.
pub fn is_drained(role: &impl Word) -> bool {
    matches!(role.get(), DRAINER | RECALLED)
}

/// A thread of the process, the only one that tries to, begins to write. Then [`end_writing`] must follow.
pub fn begin_writing(role: &impl Word) -> bool {
    role.replace(OPEN, BUSY) || role.get() == OWN
}

/// It has written.
pub fn end_writing(role: &impl Word) {
    let _ = role.replace(BUSY, OPEN);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_writes_at_a_time() {
        let role = AtomicU32::new(BUSY);
        assert_eq!(claim(&role), Claim::Later);
        assert!(!begin_writing(&role), "another thread does");
        end_writing(&role);
        assert!(begin_writing(&role) && !begin_writing(&role));
        end_writing(&role);
        assert_eq!(claim(&role), Claim::Made);
        assert_eq!(claim(&role), Claim::Never);
        assert!(is_drained(&role) && !begin_writing(&role));
        assert!(!recall(&role) && is_drained(&role));
        let_go(&role);
        assert!(begin_writing(&role) && recall(&role));
        end_writing(&role);
        assert_eq!((role.get(), claim(&role)), (OWN, Claim::Never));
    }

    #[test]
    fn a_recall_while_a_thread_writes_keeps_the_drainer_away() {
        let role = AtomicU32::new(OPEN);
        assert!(begin_writing(&role) && recall(&role));
        end_writing(&role);
        assert_eq!((role.get(), claim(&role)), (OWN, Claim::Never));
    }

    #[test]
    fn what_is_closed_stays_with_the_drainer_that_has_it() {
        let role = AtomicU32::new(OPEN);
        assert_eq!(claim(&role), Claim::Made);
        assert!(!close(&role) && role.get() == DRAINER);
        let_go(&role);
        assert!(close(&role));
    }

    #[test]
    fn a_recall_before_the_claim_keeps_it_away() {
        let role = AtomicU32::new(OPEN);
        assert!(recall(&role));
        assert_eq!(claim(&role), Claim::Never);
        let_go(&role);
        assert_eq!(role.get(), OWN);
    }
}
