//! The one thread-local word of the recorder.
//!
//! It lies in the static TLS block (initial-exec model) and is read through its GOT entry in two
//! instructions. The dynamic model, which a shared library gets by default, calls `__tls_get_addr`: slower, and that
//! may allocate, inside of `malloc`.
//!
//! | value | meaning |
//! |---|---|
//! | 0 | the thread has not been seen yet |
//! | 1 | not recorded: a thread of ours, or one that makes a call of ours just now |
//! | 2 | not recorded: a thread of the program's, where recording is off |
//! | else | the address of its `ThreadState` |

use core::arch::{asm, global_asm};

/// The word of a thread that is not recorded, since what it calls is called for the recorder.
pub const OURS: usize = 1;

/// The word of a thread that is not recorded, since nothing of the program is: its calls are the program's own.
pub const PASSED_ON: usize = 2;

/// Whether a word is the address of a `ThreadState`.
#[inline(always)]
#[must_use]
pub const fn is_state(word: usize) -> bool {
    word > PASSED_ON
}

global_asm!(
    ".pushsection .tbss.memscope, \"awT\", @nobits",
    ".p2align 3",
    ".type memscope_recorder_thread_word, @object",
    ".size memscope_recorder_thread_word, 8",
    ".hidden memscope_recorder_thread_word",
    ".globl memscope_recorder_thread_word",
    "memscope_recorder_thread_word:",
    ".zero 8",
    ".popsection",
);

/// Reads the word.
#[inline(always)]
#[must_use]
pub fn get() -> usize {
    #[cfg(loom)]
    if crate::sync::model::running() {
        return crate::sync::model::thread_word();
    }
    let word: usize;
    // SAFETY: reads the calling thread's own word; the static TLS block exists as long as the thread.
    unsafe {
        asm!(
            "mov {word}, qword ptr [rip + memscope_recorder_thread_word@GOTTPOFF]",
            "mov {word}, qword ptr fs:[{word}]",
            word = out(reg) word,
            options(nostack, preserves_flags, readonly),
        );
    }
    word
}

/// Writes the word.
#[inline(always)]
pub fn set(value: usize) {
    #[cfg(loom)]
    if crate::sync::model::running() {
        return crate::sync::model::set_thread_word(value);
    }
    // SAFETY: writes the calling thread's own word.
    unsafe {
        asm!(
            "mov {offset}, qword ptr [rip + memscope_recorder_thread_word@GOTTPOFF]",
            "mov qword ptr fs:[{offset}], {value}",
            offset = out(reg) _,
            value = in(reg) value,
            options(nostack, preserves_flags),
        );
    }
}

/// Offset of the word from the thread pointer (negative).
#[must_use]
pub fn offset() -> isize {
    let offset: isize;
    // SAFETY: reads a GOT entry.
    unsafe {
        asm!(
            "mov {offset}, qword ptr [rip + memscope_recorder_thread_word@GOTTPOFF]",
            offset = out(reg) offset,
            options(nostack, preserves_flags, readonly),
        );
    }
    offset
}

/// Marks the calling thread as ours until dropped: what it allocates meanwhile is not recorded.
#[derive(Debug)]
pub struct Unrecorded {
    before: usize,
}

impl Unrecorded {
    /// Starts.
    #[must_use]
    pub fn begin() -> Self {
        let before = get();
        set(OURS);
        Self { before }
    }
}

impl Drop for Unrecorded {
    fn drop(&mut self) {
        set(self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_thread_has_its_word() {
        set(4711);
        let other = std::thread::spawn(|| {
            let before = get();
            set(1);
            before
        });
        assert_eq!(other.join().unwrap(), 0);
        assert_eq!(get(), 4711);
        {
            let _ours = Unrecorded::begin();
            assert_eq!(get(), OURS);
        }
        assert_eq!(get(), 4711);
        set(0);
    }
}
