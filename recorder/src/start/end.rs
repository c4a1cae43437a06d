//! Ends: of the recording before the process, and of the process by `exit`.

use super::leaving::begin_forked_child;
use super::{Context, context, export, listing, say};
use crate::clock;
use crate::process::{self, Phase, Process};
use crate::program::tls::Unrecorded;
use crate::spool::buffer::Buffer;
use crate::sys::signal::Blocked;
use crate::sys::{Errno, file, seal};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;
use memscope_shared::spool::{EXITS, EXITS_AT_ONCE, EndReason, NO_CALL_REACHED_US, ONLY_COUNTED, header};
use memscope_shared::trace::{End, EndKind};

/// How long the end of a process waits for our thread.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why recording ends before the process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A wait for a free buffer made no progress.
    Stalled,
    /// The trace could not be written.
    WriteFailed(Errno),
    /// More calls before the constructor than the early buffers hold.
    EarlyOverflow,
    /// The program has restricted its own system calls.
    Sandboxed,
}

impl Reason {
    const fn recorded(self) -> EndReason {
        match self {
            Self::Sandboxed => EndReason::Sandboxed,
            Self::WriteFailed(Errno(libc::ENOMEM)) => EndReason::NoMemory,
            Self::WriteFailed(Errno::ENOENT | Errno::ESTALE) => EndReason::Deleted,
            Self::Stalled => EndReason::NoProgress,
            Self::WriteFailed(Errno::ENOSPC | Errno(libc::EDQUOT)) => EndReason::NoSpace,
            Self::WriteFailed(Errno(libc::EACCES | libc::EPERM | libc::EROFS)) => EndReason::NoPermission,
            Self::WriteFailed(Errno(libc::EFBIG | libc::EMFILE | libc::ENFILE)) => EndReason::Limit,
            Self::WriteFailed(_) => EndReason::WriteFailed,
            Self::EarlyOverflow => EndReason::EarlyOverflow,
        }
    }
}

/// Ends the recording for the whole process at this instant: what came before is exact, what comes after is
/// only counted. Says so once.
pub fn end_recording(process: &Process, reason: Reason) {
    // A thread that is cancelled in here would leave the recording half ended, and our heap locked.
    let _undisturbed = Blocked::all();
    let _ours = Unrecorded::begin();
    let spool = process.spool();
    if spool.word(header::ENDED_AT).is_none_or(|word| !word.replace(u64::MAX, clock::stamp())) {
        return;
    }
    spool.word(header::END_REASON).into_iter().for_each(|word| word.set(reason.recorded() as u64));
    if process.advance(Phase::Recording, Phase::Ended) || process.advance(Phase::Early, Phase::Ended) {
        process.call_threads();
        if reason == Reason::WriteFailed(Errno::ENOENT) {
            // Nobody will come for it; for that of a trace which was only moved, somebody may.
            spool.remove();
        }
        if seal::forbids() {
            return;
        }
        let detail = if let Reason::WriteFailed(error) = reason { error.text() } else { "" };
        let colon = if detail.is_empty() { "" } else { ": " };
        say(&format!(
            "recording has ended, the program goes on: {}{colon}{detail}",
            reason.recorded().text()
        ));
    }
}

/// Whether another library takes the program's calls before they can reach us: one is there that could, and no call has come. (One
/// that passes them on could as well.)
fn is_silent(process: &Process) -> bool {
    let preceded = process.spool().word(header::PRECEDED).is_some_and(|word| word.get() != 0);
    let no_call = |buffer: Option<Buffer>| buffer.is_none_or(|buffer| buffer.says_of_no_call());
    preceded && process.each_state().all(|state| no_call(state.filling()))
}

/// What to do about that; prepared at the start.
pub fn who_precedes(library: &[u8]) -> Vec<u8> {
    let library = String::from_utf8_lossy(library);
    format!(
        "memscope: nothing was recorded: {library} takes all calls: put libmemscope.so first in LD_PRELOAD\n"
    )
    .into()
}

/// Says so, once in a recording.
fn say_who_precedes(process: &Process, context: &Context) {
    if let Some(line) = context.preceded.as_deref().filter(|line| !line.is_empty() && is_silent(process)) {
        file::complain(line);
    }
}

/// The end frame of a process that ends by `exit`.
#[must_use]
pub fn describe(process: &Process, records: u64) -> End {
    let word = |offset| process.spool().word(offset).map_or(0, |word| word.get());
    let ended_at = word(header::ENDED_AT);
    let lost_events = word(header::LOST_EVENTS);
    let ended = EndReason::from_word(word(header::END_REASON)).map(|reason| (reason.text(), ended_at));
    let counted = || (lost_events > 0).then(|| (ONLY_COUNTED, word(header::LOST_SINCE)));
    let silent = || is_silent(process).then(|| (NO_CALL_REACHED_US, process.first_sample().stamp));
    let (reason, since) = ended.or_else(counted).or_else(silent).unzip();
    let reason = reason.map(str::to_owned);
    End {
        kind: EndKind::Exit,
        exit_code: u32::try_from(word(header::EXIT_CODE)).ok().map(|code| (code & 0xff) as i32),
        signal: None,
        stamp: word(header::EXIT_STAMP),
        complete: reason.is_none(),
        incomplete_since: since,
        reason,
        lost_events,
        records,
    }
}

/// Makes files of the notes that were left in the spool, which goes when the trace has its end; false where that fails.
#[must_use]
pub fn make_files_of_notes() -> bool {
    context().is_none_or(|context| listing::make_files(&context.directory))
}

/// The same for those that came since. Later ones are refused.
pub fn make_last_files_of_notes() {
    context().into_iter().for_each(|context| listing::make_last_files(&context.directory));
}

/// Runs when the process ends by `exit` or a return from `main`, after all other handlers and destructors
/// (it was registered before any of them). Recording goes on behind it under `memscope-cli run`, which takes the rest
/// from the spool; by hand the trace is completed here.
pub extern "C" fn at_exit(status: libc::c_int, _: *mut libc::c_void) {
    at_end(u64::from(status as u32));
}

/// The status that `quick_exit` was called with; above 2^32 where the call was not seen.
static QUICK_STATUS: AtomicU64 = AtomicU64::new(u64::MAX);

/// The program calls `quick_exit`, which tells its handlers no status.
pub fn before_quick_exit(status: libc::c_int) {
    QUICK_STATUS.store(u64::from(status as u32), Ordering::Release);
}

/// The same as [`at_exit`] for `quick_exit`.
pub extern "C" fn at_quick_exit() {
    at_end(QUICK_STATUS.load(Ordering::Acquire));
}

fn at_end(status: u64) {
    static ONCE: AtomicBool = AtomicBool::new(false);
    // A forked child that ends without a call is a process image as well: it has a trace, if an empty one.
    begin_forked_child();
    let Some(process) = process::get() else { return };
    let Some(context) = context() else { return };
    if seal::forbids() {
        // In a forked child, the spool is not there.
        return note_exit(process, status);
    }
    if context.pid != crate::sys::process::pid() || ONCE.swap(true, Ordering::SeqCst) {
        return;
    }
    note_exit(process, status);
    if !matches!(process.phase(), Phase::Recording | Phase::Ended) {
        return;
    }
    if context.launched {
        return process.writer.last_look(process, PATIENCE);
    }
    let _ours = Unrecorded::begin();
    say_who_precedes(process, context);
    if process.phase() == Phase::Ended {
        process.writer.last_look(process, PATIENCE);
    }
    if process.phase() == Phase::Recording && process.writer.finish(process, PATIENCE) {
        if context.auto_export {
            export::run(context);
        }
    } else {
        left(context);
    }
}

/// Runs when the program calls `_exit` or `_Exit`: nobody may be there who sees how this process ends.
pub fn at_raw_exit(status: libc::c_int) {
    begin_forked_child();
    let Some(process) = process::get() else { return };
    // A `vfork`'s child ends itself, not the process whose memory it uses.
    if seal::forbids() || process.pid.load(Ordering::Relaxed) != crate::sys::process::pid() {
        return;
    }
    let word = |offset| process.spool().word(offset);
    if word(header::EXIT_CALLED).is_some_and(|word| word.get() == EXITS) {
        // In a handler of `exit`: only the status is another one.
        return word(header::EXIT_CODE).into_iter().for_each(|word| word.set(u64::from(status as u32)));
    }
    note(process, u64::from(status as u32), EXITS_AT_ONCE);
    // Prepared at the start: this may be a signal handler that interrupted anything of ours.
    if let Some(context) = context().filter(|context| context.pid == crate::sys::process::pid()) {
        file::complain(&context.no_export);
        say_who_precedes(process, context);
    }
}

fn note_exit(process: &Process, status: u64) {
    note(process, status, EXITS);
}

fn note(process: &Process, status: u64, how: u64) {
    let set = |offset, value| process.spool().word(offset).into_iter().for_each(|word| word.set(value));
    set(header::EXIT_STAMP, clock::stamp());
    set(header::EXIT_CODE, status);
    set(header::EXIT_CALLED, how);
}

/// What to run for a recording that lies there.
pub fn remedy(context: &Context) -> String {
    let directory = shell_word(context.directory.path());
    format!("run `memscope-cli analyze {directory} report.html`")
}

/// A path as one would type it, quoted where the shell needs it.
fn shell_word(path: &[u8]) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-./=:,+@%^".contains(byte) || !byte.is_ascii();
    let text = String::from_utf8_lossy(path).into_owned();
    if !path.is_empty() && path.iter().all(plain) {
        return text;
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Says what to do about a recording that could not be completed here.
fn left(context: &Context) {
    say(&format!("the recording is not complete: {}", remedy(context)));
}

#[cfg(test)]
mod tests {
    use super::shell_word;

    #[test]
    fn paths_are_quoted_where_the_shell_needs_it() {
        assert_eq!(shell_word(b"/tmp/a-b_1.c"), "/tmp/a-b_1.c");
        assert_eq!(shell_word(b"/tmp/two words"), "'/tmp/two words'");
        assert_eq!(shell_word(b"it's"), r"'it'\''s'");
    }
}
