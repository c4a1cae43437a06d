//! What is done when the program restricts its own system calls (seccomp).
//!
//! From then on no system call of ours is made on the program's threads ([`crate::sys::seal`]). So before it, all
//! buffers that there may be are made, and our thread, which a filter of one thread does not bind, is told to look
//! by itself. A filter that binds all threads ends our thread first: then the records stay in the spool, and
//! recording ends when that is full. In strict mode not even the clock's instruction is left: recording ends at once.

use super::{context, end, say};
use crate::clock;
use crate::process::{self, Phase, Process};
use crate::program::{birth, tls};
use crate::sys::seal;
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

/// Prepares for the filter, and seals the program's threads off.
pub fn before(filter: Filter) {
    if let Some(process) = process::get()
        && process.phase() == Phase::Recording
    {
        let state = tls::get();
        let _ours = tls::Unrecorded::begin();
        prepare(process, filter, state);
    }
    seal::set(true);
    if filter == Filter::Strict {
        tls::set(tls::PASSED_ON);
    }
}

/// The kernel has refused the filter: everything is as before, but that strict mode has ended the recording.
pub fn refused() {
    seal::set(false);
    process::get().into_iter().for_each(|process| process.writer.unretire());
}

fn prepare(process: &'static Process, filter: Filter, state: usize) {
    if filter == Filter::Strict || !clock::is_tsc() {
        return end::end_recording(process, end::Reason::Sandboxed);
    }
    process.pool.reserve(process.spool());
    birth::prepare_nested(state);
    if filter == Filter::AllThreads {
        process.writer.retire(PATIENCE);
    } else {
        process.writer.poll(process);
    }
    if let Some(context) = context().filter(|context| context.auto_export) {
        let directory = String::from_utf8_lossy(context.directory.path());
        say(&format!(
            "no export: the program restricts its own system calls: run `memscope-cli analyze {directory} report.html`"
        ));
    }
}
