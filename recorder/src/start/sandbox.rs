//! What is done when the program restricts its own system calls (seccomp).
//!
//! From then on no system call of ours is made on the program's threads ([`crate::sys::seal`]). So before it, all
//! buffers that there may be are made, and our thread, which a filter of one thread does not bind, is told to look
//! by itself. A filter that binds all threads ends our thread first: then the records stay in the spool, and
//! recording ends when that is full. In strict mode not even the clock's instruction is left: recording ends at once.

use super::{context, end, leaving, say};
use crate::children;
use crate::clock;
use crate::process::{self, Phase, Process};
use crate::program::{birth, fork, slow, tls};
use crate::sync::atomic::Ordering;
use crate::sys::signal::Blocked;
use crate::sys::{process as os, seal};
use core::time::Duration;

/// How long the program waits for our thread to end.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the program asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Only `read`, `write`, `_exit` and `sigreturn`, for the calling thread.
    Strict,
    /// A filter for the calling thread and those that it makes.
    CallingThread,
    /// A filter for all threads.
    AllThreads,
}

/// What is to be undone where the kernel refuses the filter.
#[derive(Debug)]
#[must_use]
pub struct Undo {
    /// The calling thread's word, where it is another now.
    word: Option<usize>,
}

/// Prepares for the filter, and seals the program's threads off. Nothing is done (`None`) in the child of a `vfork`, whose
/// filter is not that of its parent, while what is kept here is.
#[must_use]
pub fn before(filter: Filter) -> Option<Undo> {
    if is_lent() {
        return None;
    }
    leaving::begin_forked_child();
    let state = tls::get();
    children::before_leaving();
    if let Some(process) = process::get()
        && process.phase() == Phase::Recording
    {
        let _undisturbed = Blocked::all();
        let _ours = tls::Unrecorded::begin();
        prepare(process, filter, state);
    }
    seal::close();
    let word = (filter == Filter::Strict).then_some(state);
    if word.is_some() {
        tls::set(tls::PASSED_ON);
    }
    Some(Undo { word })
}

/// The kernel has refused the filter: everything is as before, but that strict mode has ended the recording. An earlier
/// filter stays in force, and with it the seal.
pub fn refused(undo: &Undo) {
    undo.word.into_iter().for_each(tls::set);
    if seal::reopen() {
        process::get().into_iter().for_each(|process| process.writer.unretire(process));
    }
}

/// True in a process that runs in another one's memory. A forked child that has not begun has no id yet, and statics of its
/// own. (Where the seal is closed, no question is allowed: one filter more makes no difference then.)
fn is_lent() -> bool {
    let owner = process::get().map_or(0, |process| process.pid.load(Ordering::Relaxed));
    owner != 0 && !seal::forbids() && owner != os::pid()
}

fn prepare(process: &'static Process, filter: Filter, state: usize) {
    if filter == Filter::Strict || !clock::is_tsc() {
        return end::end_recording(process, end::Reason::Sandboxed);
    }
    slow::measure_patience(process);
    process.pool.reserve(process.spool());
    let _ = process.writer.channel_for_sending();
    birth::prepare_nested(state);
    fork::prepare_for_seal();
    if filter == Filter::AllThreads {
        process.writer.retire(process, PATIENCE);
    } else {
        process.writer.poll(process);
    }
    if let Some(context) = context().filter(|context| context.auto_export) {
        say(&format!("no export: the program restricts its own system calls: {}", end::remedy(context)));
    }
}
