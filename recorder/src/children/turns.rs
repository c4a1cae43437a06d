//! Who changes the environment: libc for the program (`setenv` and its kin, which are hooked for this), or the [loan](super::loan)
//! of our entry. Never both at a time: `setenv` may put an array in place that it has copied from the one before, and what
//! was done to that one in between would be lost.
//!
//! ```text
//!   a change: CHANGES + 1; LENDING? then back, and wait | libc's function | CHANGES - 1
//!   a loan:   LENDING = 1; wait for CHANGES = 0         | the exchange    | LENDING = 0
//! ```
//!
//! Each side first says what it is about to do, and then looks at the other. Nobody waits without end: a signal handler may have interrupted a change
//! and start a shell, and a forked child has the words of its parent's threads, but not those.

use crate::process::{self, Process};
use crate::sys::{process as os, time};
use core::sync::atomic::{AtomicU32, Ordering};

/// How long one side waits for the other, in ns.
const PATIENCE: u64 = 50_000_000;

static CHANGES: AtomicU32 = AtomicU32::new(0);
static LENDING: AtomicU32 = AtomicU32::new(0);

/// A change of the program's, or a loan, while it lives.
#[derive(Debug)]
pub struct Turn {
    of_loan: bool,
}

/// Waits until nothing is left of what the other side has said. Where that lasts too long, whoever said it is gone, and will not take it
/// back: jumped out of by a handler, or a thread of the parent.
fn wait_for(word: &AtomicU32) {
    let deadline = time::monotonic_ns() + PATIENCE;
    while word.load(Ordering::SeqCst) != 0 {
        if time::monotonic_ns() > deadline {
            return word.store(0, Ordering::SeqCst);
        }
        os::yield_now();
    }
}

/// What [`forked`] does, in a child that nobody has seen come to life (a system call of the program's own made it) and in which nothing
/// has been called yet. Its first call does so as well.
fn notice_fork() {
    if process::get().is_some_and(Process::is_unborn_child) {
        forked();
    }
}

/// One change less; in a child that was forked inside of it there is none any more.
fn end_change() {
    let _ = CHANGES.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |changes| changes.checked_sub(1));
}

impl Turn {
    /// The program is about to change its environment.
    #[must_use]
    pub fn of_change() -> Self {
        notice_fork();
        loop {
            CHANGES.fetch_add(1, Ordering::SeqCst);
            if LENDING.load(Ordering::SeqCst) == 0 {
                return Self { of_loan: false };
            }
            end_change();
            wait_for(&LENDING);
        }
    }

    /// Our entry is about to come or go. The caller is the only one, and undisturbed by signals.
    #[must_use]
    pub fn of_loan() -> Self {
        notice_fork();
        LENDING.store(1, Ordering::SeqCst);
        wait_for(&CHANGES);
        Self { of_loan: true }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.of_loan {
            LENDING.store(0, Ordering::SeqCst);
        } else {
            end_change();
        }
    }
}

/// In a forked child: the threads whose turn it was are its parent's.
pub fn forked() {
    CHANGES.store(0, Ordering::SeqCst);
    LENDING.store(0, Ordering::SeqCst);
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::sync::atomic::AtomicBool;
    use std::thread;

    #[test]
    fn one_at_a_time() {
        static IN_LOAN: AtomicBool = AtomicBool::new(false);
        static STOP: AtomicBool = AtomicBool::new(false);
        static CHANGED: AtomicU32 = AtomicU32::new(0);
        let changing = || {
            while !STOP.load(Ordering::SeqCst) {
                let _turn = Turn::of_change();
                assert!(!IN_LOAN.load(Ordering::SeqCst));
                CHANGED.fetch_add(1, Ordering::SeqCst);
            }
        };
        let threads = [thread::spawn(changing), thread::spawn(changing)];
        for _ in 0..200 {
            let _turn = Turn::of_loan();
            let before = CHANGED.load(Ordering::SeqCst);
            IN_LOAN.store(true, Ordering::SeqCst);
            thread::yield_now();
            assert_eq!(CHANGED.load(Ordering::SeqCst), before);
            IN_LOAN.store(false, Ordering::SeqCst);
        }
        STOP.store(true, Ordering::SeqCst);
        threads.into_iter().for_each(|thread| thread.join().expect("no meeting"));
        // A change that nobody ends is waited for once.
        CHANGES.store(1, Ordering::SeqCst);
        drop(Turn::of_loan());
        assert_eq!(CHANGES.load(Ordering::SeqCst), 0);
        forked();
        drop(Turn { of_loan: false });
        assert_eq!(CHANGES.load(Ordering::SeqCst), 0, "a child that was forked inside of a change");
    }

    #[test]
    fn a_child_by_number_has_none_of_its_parents_turns() {
        // SAFETY: the child makes system calls and ends.
        let child = unsafe { libc::syscall(libc::SYS_fork) };
        if child == 0 {
            let has_turns = || CHANGES.load(Ordering::SeqCst) + LENDING.load(Ordering::SeqCst) != 0;
            CHANGES.store(1, Ordering::SeqCst);
            LENDING.store(1, Ordering::SeqCst);
            notice_fork();
            let before = has_turns();
            process::set_born();
            notice_fork();
            let status = i32::from(!before) + 2 * i32::from(has_turns());
            // SAFETY: nothing of the parent's is to run here.
            unsafe { libc::_exit(status) };
        }
        let mut status = -1;
        // SAFETY: `status` is writable.
        assert_eq!(unsafe { libc::waitpid(child as i32, &raw mut status, 0) }, child as i32);
        assert_eq!(status, 0);
    }
}
