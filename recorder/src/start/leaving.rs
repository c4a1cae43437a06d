//! What is prepared before the program takes something out of its own reach: the trace by its path, room in files.
//!
//! A forked child that does so before its first call begins now: later, its recording could not be made any more.

use crate::children;
use crate::process::{self, Phase, Process};
use crate::program::tls::Unrecorded;
use crate::program::{birth, fork};
use crate::sync::atomic::Ordering;
use crate::sys::signal::Blocked;
use crate::sys::{limits, process as os, seal};

/// A limit of file sizes from which on there is room for all buffers that a process of 800 threads may have.
const ROOM_FOR_BUFFERS: u64 = 64 << 20;

/// Begins a forked child in which nothing has been called yet. (The child of a `vfork` that such a child makes has its memory, too.)
pub(super) fn begin_forked_child() {
    let is_unborn =
        |process: &&Process| process.is_unborn_child() && !seal::forbids() && fork::parent().is_some();
    let Some(process) = process::get().filter(is_unborn) else { return };
    {
        let _undisturbed = Blocked::all();
        let _ours = Unrecorded::begin();
        birth::ensure_begun(process);
    }
    birth::begin_thread();
}

/// The process, where it is recorded and its threads may make system calls of ours; not in the child of a `vfork`.
fn recorded() -> Option<&'static Process> {
    begin_forked_child();
    let process = process::get().filter(|_| !seal::forbids())?;
    let is_own = || process.pid.load(Ordering::Relaxed) == os::pid();
    (process.phase() == Phase::Recording && is_own()).then_some(process)
}

/// The program is about to change what it can reach by a path, or open at all: the trace is opened before that, and stays so.
pub fn before_leaving() {
    if let Some(process) = recorded() {
        process.writer.keep_open();
        // The spool is grown by its path.
        process.pool.reserve_few(process.spool());
        children::before_leaving();
    }
}

/// The program is about to limit how many files it may open to this.
pub fn before_limiting_descriptors(to: u64) {
    if to < limits::of_descriptors() {
        before_leaving();
    }
}

/// The program is about to limit the size of files to this: the spool gets all buffers before that, so that what is recorded outlives
/// the process even where the trace meets the limit.
pub fn before_limiting_files(to: u64) {
    if to >= ROOM_FOR_BUFFERS || to >= limits::of_file_sizes() {
        return;
    }
    if let Some(process) = recorded() {
        process.pool.reserve(process.spool());
    }
}
