//! What the recorder knows about this process image.
//!
//! It lies in memory that reads as zero in a forked child, however the child was made (`fork`,
//! `_Fork`, raw `clone`). So a child can never write into its parent's spool or trace: it finds phase
//! [`Phase::Unborn`], and the [`born`] flag, which is not wiped, tells it from a program's first call.
//!
//! ```text
//! Unborn -> Early -> Recording -> Ended      recording stopped early: events are only counted
//!             |          \------> Finished   by hand: the trace is complete, the process is at its end
//!             \-> Off                        nothing is recorded at all
//! ```

use crate::clock::Sample;
use crate::heap::map_wiped;
use crate::program::thread::ThreadState;
use crate::spool::file::SpoolFile;
use crate::spool::pool::Pool;
use crate::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, Ordering};
use crate::sys::{memory, process as os};
use crate::writer::Writer;
use core::cell::UnsafeCell;
use core::ptr::null_mut;

/// How far this process image is. See the module's drawing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Phase {
    /// No call yet (or a forked child, before its first).
    Unborn,
    /// Recording into private buffers: the constructor has not run.
    Early,
    /// Recording.
    Recording,
    /// Recording stopped early.
    Ended,
    /// Not recorded.
    Off,
    /// The trace is complete.
    Finished,
}

impl Phase {
    const fn from(number: u32) -> Self {
        match number {
            1 => Self::Early,
            2 => Self::Recording,
            3 => Self::Ended,
            4 => Self::Off,
            5 => Self::Finished,
            _ => Self::Unborn,
        }
    }
}

/// How many full buffers the time before the constructor may produce: 64 MiB of records.
pub const EARLY_BUFFERS: usize = 1024;

/// The process image. Valid when all bytes are zero.
#[derive(Debug)]
pub struct Process {
    phase: AtomicU32,
    starting: AtomicU32,
    /// Its id.
    pub pid: AtomicU32,
    /// Threads numbered so far.
    pub threads: AtomicU32,
    /// Streams numbered so far.
    pub streams: AtomicU32,
    /// Names of blocks numbered so far.
    pub names: AtomicU32,
    /// Head of the list of thread states; they are never taken out.
    pub states: AtomicPtr<ThreadState>,
    /// States whose thread may be gone.
    pub ending: AtomicU32,
    /// The buffers.
    pub pool: Pool,
    /// Full buffers of the early phase, in order.
    pub early: [AtomicUsize; EARLY_BUFFERS],
    /// How many of them there are.
    pub early_count: AtomicUsize,
    /// The first reading of the clocks; written before the phase leaves `Unborn`.
    pub first_sample: UnsafeCell<Sample>,
    /// The spool's file; written once by the thread that starts recording.
    pub spool: UnsafeCell<SpoolFile>,
    /// The writer.
    pub writer: Writer,
}

// SAFETY: all fields are atomics or synchronise themselves, but for the two cells, which are written before the
// phase that lets others read them is stored with release order.
unsafe impl Sync for Process {}

static PROCESS: AtomicPtr<Process> = AtomicPtr::new(null_mut());
static BORN: AtomicBool = AtomicBool::new(false);

/// The process image's state; `None` where the kernel gives no memory.
#[must_use]
pub fn get() -> Option<&'static Process> {
    let known = PROCESS.load(Ordering::Acquire);
    if !known.is_null() {
        // SAFETY: mapped for good.
        return Some(unsafe { &*known });
    }
    let fresh = map_wiped(size_of::<Process>())?.cast::<Process>();
    let here = match PROCESS.compare_exchange(null_mut(), fresh, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => fresh,
        Err(other) => {
            // SAFETY: nobody else has seen the fresh mapping.
            let _ = unsafe { memory::unmap(fresh.cast(), size_of::<Process>()) };
            other
        }
    };
    // SAFETY: mapped for good, valid when zero.
    Some(unsafe { &*here })
}

/// True where this process or one that it was forked from has been recorded before.
#[must_use]
pub fn born() -> bool {
    BORN.load(Ordering::Relaxed)
}

/// From now on a state of zeros means a forked child.
pub fn set_born() {
    BORN.store(true, Ordering::Relaxed);
}

impl Process {
    /// How far it is.
    #[must_use]
    pub fn phase(&self) -> Phase {
        Phase::from(self.phase.load(Ordering::Acquire))
    }

    /// True in a forked child in which nothing has been called yet, however it was made.
    #[must_use]
    pub fn is_unborn_child(&self) -> bool {
        self.phase() == Phase::Unborn && born()
    }

    /// Goes on to a phase. What others may read in it must have been written before.
    pub fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u32, Ordering::Release);
    }

    /// Goes from one phase to another; false where another thread was first.
    #[must_use]
    pub fn advance(&self, from: Phase, to: Phase) -> bool {
        self.phase.compare_exchange(from as u32, to as u32, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Runs `first` once, in the thread that comes first; others wait until the phase has left `Unborn`, if that is soon.
    pub fn leave_unborn(&self, first: impl FnOnce()) {
        if self.starting.compare_exchange(0, 1, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            self.pid.store(os::pid(), Ordering::Relaxed);
            first();
            return;
        }
        let mut turns = os::Turns::default();
        while self.phase() == Phase::Unborn && turns.pass() {}
    }

    /// The spool's file.
    #[must_use]
    pub fn spool(&self) -> &SpoolFile {
        // SAFETY: written only by `spool_mut`'s one caller, before anybody can see the file's header.
        unsafe { &*self.spool.get() }
    }

    /// The reading of the clocks at the process's first call.
    #[must_use]
    pub fn first_sample(&self) -> Sample {
        // SAFETY: written once, before the phase left `Unborn`.
        unsafe { *self.first_sample.get() }
    }

    /// All thread states, newest first.
    pub fn each_state(&self) -> impl Iterator<Item = &'static ThreadState> + use<> {
        let mut at = self.states.load(Ordering::Acquire);
        core::iter::from_fn(move || {
            // SAFETY: states are never unmapped, and shared access goes to their atomics only.
            let state = unsafe { at.as_ref() }?;
            at = state.next();
            Some(state)
        })
    }

    /// Makes this the process of a model.
    #[cfg(loom)]
    pub fn model() -> &'static Self {
        PROCESS.store(null_mut(), Ordering::Relaxed);
        let process = get().expect("memory");
        crate::sync::model::Touch::touch(process);
        process.pid.store(os::pid(), Ordering::Relaxed);
        process
    }

    /// Calls every thread: its next event takes the slow path and sees what has changed.
    pub fn call_threads(&self) {
        self.each_state().for_each(ThreadState::call);
    }
}

#[cfg(loom)]
impl crate::sync::model::Touch for Process {
    fn touch(&self) {
        [&self.phase, &self.starting, &self.pid, &self.threads, &self.streams, &self.ending]
            .iter()
            .for_each(|word| word.touch());
        self.states.touch();
        self.early_count.touch();
        self.pool.touch();
        self.spool().touch();
        self.writer.touch();
    }
}
