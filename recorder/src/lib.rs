//! memscope's recorder: everything between a hook and the trace file.
//!
//! See `ARCHITECTURE.md`. In short: [`program`] runs on the program's threads, [`writer`] on ours,
//! [`spool`] is the memory between them, [`start`] brings it all up and down, [`sys`] calls the kernel.
//! This crate exports no C symbol; `preload/` puts the hooks around it.

pub mod children;
pub mod clock;
pub mod heap;
pub mod hot;
#[cfg(all(test, loom))]
mod models;
pub mod process;
pub mod program;
pub mod region;
pub mod spool;
pub mod start;
pub mod symbols;
pub mod sync;
pub mod sys;
pub mod writer;
