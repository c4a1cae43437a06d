//! What every hook reads of the process, and what hardly ever changes: together in one cache line that nobody else writes to,
//! with one address to be looked up for all of it.

use core::sync::atomic::{AtomicU32, AtomicUsize};

/// The words; each belongs to one module.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Hot {
    /// Which clock stamps are read from: [`crate::clock`]'s.
    pub clock: AtomicU32,
    /// The generation of modules: [`crate::program::stack::modules`]'s.
    pub generation: AtomicU32,
    /// Where the dynamic loader's code begins: [`crate::program::stack::loader`]'s.
    pub loader_start: AtomicUsize,
    /// Its length in bytes; 0 before it is known.
    pub loader_length: AtomicUsize,
}

/// The process's.
pub static HOT: Hot = Hot {
    clock: AtomicU32::new(0),
    generation: AtomicU32::new(1),
    loader_start: AtomicUsize::new(0),
    loader_length: AtomicUsize::new(0),
};
