//! The slow path of a record: no room, or somebody has called the thread.

use super::stack::{Sink, StackState};
use super::thread::ThreadState;
use super::tls;
use super::{birth, fork};
use crate::clock;
use crate::process::{self, EARLY_BUFFERS, Phase, Process};
use crate::spool::buffer::Buffer;
use crate::start::end;
use crate::sync::atomic::{AtomicU32, Ordering};

use crate::sys::signal::Blocked;
use crate::sys::{seal, time};
use core::sync::atomic::{AtomicU64, compiler_fence};
use core::time::Duration;
use memscope_shared::record::{Module, head, kind};
use memscope_shared::spool::{EndReason, header};

/// A wait for a buffer without any progress that lasts this long ends the recording.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a wait lasts at most before a thread looks again.
pub const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// The same in stamps, for waits where no system call may be made; 0: not known.
static SEALED_PATIENCE: AtomicU64 = AtomicU64::new(0);

/// Makes room for the next record (with [`ThreadState::is_due`]'s slack). False: nothing can be recorded.
///
/// # Safety
/// The calling thread owns the state and holds its guard.
#[cold]
#[inline(never)]
#[must_use]
pub unsafe fn prepare(state: *mut ThreadState) -> bool {
    // SAFETY: as promised.
    unsafe {
        if (*state).abandoned.load(Ordering::Relaxed) != 0 {
            forget(state);
            return false;
        }
        if (*state).stream.load(Ordering::Relaxed) == 0 && !birth::reborn(state) {
            tls::set(tls::PASSED_ON);
            return false;
        }
        let Some(process) = process::get() else { return false };
        loop {
            match process.phase() {
                Phase::Early | Phase::Recording => {}
                Phase::Off => {
                    tls::set(tls::PASSED_ON);
                    return false;
                }
                Phase::Unborn => {
                    // A fork came in between, where nobody could see it: the next call begins anew.
                    forget(state);
                    return false;
                }
                Phase::Ended | Phase::Finished => return false,
            }
            if let Some(buffer) = (*state).filling() {
                let early = buffer.header().private.load(Ordering::Relaxed) == 1;
                if early && process.phase() == Phase::Recording && migrate(process, state, buffer) {
                    continue;
                }
                ThreadState::reset_limit(state);
                compiler_fence(Ordering::SeqCst);
                if (*state).abandoned.load(Ordering::Relaxed) != 0 {
                    // A handler that was let in above has forked: what this hook writes must not go where nobody looks.
                    ThreadState::abandon(state);
                    forget(state);
                    return false;
                }
                if !ThreadState::is_due(state) {
                    return true;
                }
                ThreadState::leave_buffer(state);
                hand_over(process, buffer, &(*state).abandoned);
            }
            let Some((buffer, _undisturbed)) = acquire(process, &(*state).abandoned) else { return false };
            let (stream, thread) =
                ((*state).stream.load(Ordering::Relaxed), (*state).number.load(Ordering::Relaxed));
            buffer.adopt(stream.into(), thread.into(), ThreadState::position(state));
            ThreadState::fill(state, buffer, 0);
        }
    }
}

/// The calling thread's next call finds it as if it had never been seen.
fn forget(state: *mut ThreadState) {
    if tls::get() == state as usize {
        tls::set(0);
    }
}

/// As [`prepare`], but cheap where nothing is due.
///
/// # Safety
/// As for [`prepare`].
#[inline(always)]
pub unsafe fn ready(state: *mut ThreadState) -> bool {
    // SAFETY: as promised.
    unsafe { !ThreadState::is_due(state) || prepare(state) }
}

/// Copies what a private buffer holds into one of the spool, now that there is one, so that it outlives
/// the process. True where the state's buffer changed.
///
/// # Safety
/// The calling thread owns the state; `old` is its buffer.
unsafe fn migrate(process: &'static Process, state: *mut ThreadState, old: Buffer) -> bool {
    // SAFETY: as promised.
    let Some(_undisturbed) = undisturbed(unsafe { &(*state).abandoned }) else { return false };
    let Some(new) = process.pool.take(process.spool()) else { return false };
    if new.header().private.load(Ordering::Relaxed) == 1 {
        process.pool.give(new);
        // The spool can't grow: not to be asked again for this buffer.
        old.header().private.store(2, Ordering::Relaxed);
        return false;
    }
    // SAFETY: both buffers are the thread's own; the old one stays mapped, since the writer may be reading it. Its
    // words that the writer has taken already are taken only once: positions tell.
    unsafe {
        let filled = ThreadState::filled(state);
        core::ptr::copy_nonoverlapping(old.words(), new.words(), filled);
        let (stream, thread) =
            ((*state).stream.load(Ordering::Relaxed), (*state).number.load(Ordering::Relaxed));
        new.adopt(stream.into(), thread.into(), ThreadState::position(state));
        new.header().committed.store(filled as u64, Ordering::Release);
        ThreadState::fill(state, new, filled);
    }
    true
}

/// Gives a full buffer to the writer; where none lives, writes it. Not where it is that of a parent: `abandoned` says so.
fn hand_over(process: &'static Process, buffer: Buffer, abandoned: &AtomicU32) {
    if process.phase() != Phase::Early || !put_aside(process, buffer) {
        process.writer.hand_over(process, buffer, abandoned);
    }
}

/// Keeps a full buffer for the constructor, which writes it ([`crate::writer::drain::early`]); false where that has been meanwhile.
fn put_aside(process: &Process, buffer: Buffer) -> bool {
    let index = process.early_count.fetch_add(1, Ordering::AcqRel);
    let Some(slot) = process.early.get(index) else {
        process.early_count.store(EARLY_BUFFERS + 1, Ordering::Release);
        return true;
    };
    slot.swap(buffer.address(), Ordering::AcqRel);
    // Who has looked at the slot before us had set the phase before that.
    process.phase() == Phase::Early || slot.swap(0, Ordering::AcqRel) == 0
}

/// From here on no handler forks; `None` where one has, and the calling hook is the parent's.
fn undisturbed(abandoned: &AtomicU32) -> Option<Blocked> {
    let blocked = Blocked::all();
    (abandoned.load(Ordering::Relaxed) == 0).then_some(blocked)
}

/// A free buffer, which is this process's: no handler forks before it has been adopted. Waits for one where it must. `None` ends the
/// recording (or it has ended meanwhile), or the hook is a parent's: `abandoned` says so.
fn acquire(process: &'static Process, abandoned: &AtomicU32) -> Option<(Buffer, Blocked)> {
    if process.phase() == Phase::Early {
        let blocked = undisturbed(abandoned)?;
        return Some((process.pool.private()?, blocked));
    }
    if seal::forbids() {
        return acquire_sealed(process, abandoned);
    }
    let (mut progress, mut waited) = (process.writer.returns(process), 0);
    loop {
        let seen = process.writer.returns(process);
        let blocked = undisturbed(abandoned)?;
        process.writer.collect(process);
        if let Some(buffer) = process.pool.take(process.spool()) {
            return Some((buffer, blocked));
        }
        drop(blocked);
        if process.phase() != Phase::Recording {
            return None;
        }
        if process.writer.write_if_nobody_does(process) {
            continue;
        }
        let before = time::monotonic_ns();
        process.writer.wait(process, seen, abandoned);
        let (now, returns) = (time::monotonic_ns(), process.writer.returns(process));
        // A program that was stopped meanwhile has not waited all that time, nor could anybody write.
        waited += (now - before).min(2 * LOOK_AGAIN.as_nanos() as u64);
        if returns != progress {
            (progress, waited) = (returns, 0);
        } else if waited > PATIENCE.as_nanos() as u64 {
            end::end_recording(process, end::Reason::Stalled);
            return None;
        }
    }
}

/// Writes a record of any length: `encode` puts its words down by their index. False where that can't be.
///
/// # Safety
/// The calling thread owns the state and holds its guard; the record has that many words, fewer than an empty buffer.
#[cold]
pub unsafe fn put_long(
    state: *mut ThreadState,
    words: usize,
    encode: impl FnOnce(&mut dyn FnMut(usize, u64)),
) -> bool {
    // SAFETY: as promised.
    unsafe {
        if !ready(state) {
            return false;
        }
        if ThreadState::room(state) < words + 8 {
            let Some(process) = process::get() else { return false };
            if let Some(buffer) = (*state).filling() {
                ThreadState::leave_buffer(state);
                hand_over(process, buffer, &(*state).abandoned);
            }
            if !prepare(state) || ThreadState::room(state) < words + 8 {
                return false;
            }
        }
        let at = ThreadState::write_at(state);
        encode(&mut |index, word| at.add(index).write(word));
        ThreadState::commit(state, words);
    }
    true
}

/// Finds out how long in stamps a wait may be once the kernel can't be asked for the time. Stamps must be TSC readings.
pub fn measure_patience(process: &Process) {
    let (first, now) = (process.first_sample(), clock::sample());
    let ns = u128::from(now.monotonic_ns.saturating_sub(first.monotonic_ns).max(1));
    let stamps = u128::from(now.stamp.saturating_sub(first.stamp)) * PATIENCE.as_nanos() / ns;
    if !seal::forbids() {
        SEALED_PATIENCE.store(u64::try_from(stamps).unwrap_or(0), Ordering::Relaxed);
    }
}

/// A free buffer where no system call may be made: there is no other way to wait than to look again.
fn acquire_sealed(process: &'static Process, abandoned: &AtomicU32) -> Option<(Buffer, Blocked)> {
    let mut progress = (process.pool.returns(), clock::stamp());
    loop {
        // Nothing can be blocked any more.
        let blocked = undisturbed(abandoned)?;
        process.writer.collect(process);
        if let Some(buffer) = process.pool.take(process.spool()) {
            return Some((buffer, blocked));
        }
        if process.phase() != Phase::Recording {
            return None;
        }
        if !process.writer.is_running() && !process.writer.may_be_drained(process) {
            break;
        }
        let now = clock::stamp();
        if process.pool.returns() != progress.0 {
            progress = (process.pool.returns(), now);
        } else if now.wrapping_sub(progress.1) >= SEALED_PATIENCE.load(Ordering::Relaxed) {
            break;
        }
        core::hint::spin_loop();
    }
    end::end_recording(process, end::Reason::Sandboxed);
    None
}

/// Records an event of two words.
///
/// # Safety
/// The calling thread owns the state and holds its guard.
#[inline(always)]
pub unsafe fn put_short(state: *mut ThreadState, words: [u64; 2]) {
    // SAFETY: as promised.
    unsafe {
        if ready(state) {
            ThreadState::put(state, words);
        } else {
            lost(state);
        }
    }
}

/// Records the start of a block with the stack that is captured; `kinds` are those of a record for sizes below 2^32, and for
/// others.
///
/// # Safety
/// The calling thread owns the state and holds its guard.
#[inline(always)]
pub unsafe fn start(
    state: *mut ThreadState,
    kinds: [u8; 2],
    address: usize,
    size: usize,
    stamp: u64,
    capture: impl FnOnce(*mut StackState, &mut StreamSink) -> u32,
) {
    // SAFETY: as promised.
    unsafe {
        // Before the capture: in a forked child the stacks' ids start afresh.
        if !ready(state) {
            return lost(state);
        }
        let mut sink = StreamSink::new(state);
        let stack = u64::from(capture(ThreadState::stack(state), &mut sink));
        if !ready(state) {
            return lost(state);
        }
        if let Ok(size) = u32::try_from(size) {
            ThreadState::put(state, [head(kinds[0], address as u64), stamp, stack << 32 | u64::from(size)]);
        } else {
            ThreadState::put(state, [head(kinds[1], address as u64), stamp, stack << 32, size as u64]);
        }
    }
}

/// Counts an event that cannot be recorded.
///
/// # Safety
/// The calling thread owns the state.
#[cold]
pub unsafe fn lost(state: *mut ThreadState) {
    // SAFETY: as promised.
    let is_ours = unsafe { (*state).abandoned.load(Ordering::Relaxed) == 0 };
    if is_ours && !matches!(tls::get(), tls::OURS | tls::PASSED_ON) {
        process::get().into_iter().for_each(count_lost);
    }
}

/// Counts an event that cannot be recorded.
pub fn count_lost(process: &Process) {
    if let Some(word) = process.spool().word(header::LOST_EVENTS) {
        word.add(1);
    }
    if let Some(since) = process.spool().word(header::LOST_SINCE)
        && since.get() == 0
    {
        let _ = since.replace(0, clock::stamp());
    }
    if seal::forbids()
        && let Some(reason) = process.spool().word(header::END_REASON)
    {
        let _ = reason.replace(0, EndReason::Sandboxed as u64);
    }
}

/// Where the stack capture puts its records: the thread's stream.
#[derive(Debug)]
pub struct StreamSink {
    state: *mut ThreadState,
}

impl StreamSink {
    /// # Safety
    /// The calling thread owns the state and holds its guard, as long as the sink lives.
    #[inline(always)]
    #[must_use]
    pub const unsafe fn new(state: *mut ThreadState) -> Self {
        Self { state }
    }
}

impl Sink for StreamSink {
    #[inline]
    fn node(&mut self, kind: u8, operand: u64, id: u32, parent: u32) {
        // SAFETY: see `new`.
        unsafe {
            let record = [head(kind, operand), u64::from(id) << 32 | u64::from(parent)];
            if ready(self.state) {
                ThreadState::put(self.state, record);
            } else if (*self.state).abandoned.load(Ordering::Relaxed) != 0 {
                fork::adopt(self.state, |state| {
                    if ready(state) {
                        ThreadState::put(state, record);
                    }
                });
            }
        }
    }

    #[cold]
    fn module(&mut self, module: &Module<'_>) {
        // SAFETY: see `new`; a module's record is shorter than an empty buffer.
        unsafe {
            let put = |state| put_long(state, module.words(), |put| module.encode(put));
            if !put(self.state) && (*self.state).abandoned.load(Ordering::Relaxed) != 0 {
                // Modules are announced once, whoever is first to meet them.
                fork::adopt(self.state, |state| {
                    let _nothing_to_be_done = put(state);
                });
            }
        }
    }

    #[cfg(feature = "check")]
    fn is_parents(&self) -> bool {
        // SAFETY: see `new`; of a fork that nobody has seen the state comes out wiped.
        unsafe {
            (*self.state).abandoned.load(Ordering::Relaxed) != 0
                || (*self.state).stream.load(Ordering::Relaxed) == 0
        }
    }

    #[cold]
    fn modules_gone(&mut self, generation: u32, start: u64) {
        // SAFETY: see `new`.
        unsafe {
            if ready(self.state) {
                let head = head(kind::MODULES_GONE, u64::from(generation));
                ThreadState::put(self.state, [head, clock::stamp(), start]);
            }
        }
    }
}
