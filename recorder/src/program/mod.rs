//! What runs on the threads of the program, inside its calls of `malloc`.
//!
//! Rules here: no allocation, no lock, no panic, no libc call that touches `errno` or thread-local storage;
//! system calls only on the cold paths ([`slow`], [`birth`]).
//!
//! [`Op`] is the whole interface for the hooks: a value that one must hold to record anything, so a hook that runs
//! inside another one cannot record twice.

pub mod birth;
mod forward;
mod op;
pub mod slow;
pub mod stack;
pub mod thread;
pub mod tls;

pub use forward::add_forwarder;
pub use op::Op;
