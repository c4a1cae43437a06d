//! What runs on the threads of the program, inside its calls of `malloc`.
//!
//! Rules here: no allocation, no lock, no panic, no libc call that touches `errno` or thread-local storage;
//! system calls only on the cold paths ([`slow`], [`birth`]).
//!
//! [`Op`] is the whole interface for the hooks: a value that one must hold to record anything, so a hook that runs
//! inside another one cannot record twice.

pub mod birth;
mod carried;
pub mod fork;
pub mod naming;
mod op;
mod operator;
mod quick;
pub mod slow;
pub mod stack;
pub mod thread;
pub mod tls;

pub use op::Op;
pub use operator::OperatorNew;
pub use quick::Quick;

/// True while the calling thread runs a hook that records (and no part of it that is marked as ours).
#[must_use]
pub fn inside_hook() -> bool {
    let word = tls::get();
    // SAFETY: the word is the address of this thread's state.
    tls::is_state(word)
        && unsafe {
            (*(word as *const thread::ThreadState)).guard.load(core::sync::atomic::Ordering::Relaxed)
        } != 0
}
