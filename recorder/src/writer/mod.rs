//! The writer: from full buffers to frames of the trace.
//!
//! [`channel`] carries full buffers, [`thread`] is our thread, [`drain`] its loop, [`sink`] makes frames and appends
//! them, [`compress`] is zstd, [`drained`] is for processes that `memscope-cli` drains. What is here runs on our thread; where none lives (it was never started, or the
//! process was forked) a thread of the program does the same work under the same lock.

pub mod channel;
pub mod compress;
pub(crate) mod drain;
pub mod drained;
mod losses;
pub mod sink;
mod thread;

use crate::process::{Phase, Process};
use crate::program::tls::Unrecorded;
use crate::spool::buffer::Buffer;
use crate::start::end;
use crate::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
use crate::sys::signal::Blocked;
use crate::sys::{futex, process as os, seal};
use channel::Channel;
use core::ptr::null_mut;
use core::time::Duration;
use drained::Left;
use memscope_shared::rhythm::GATHER;
use sink::Sink;

/// No thread of ours yet; one is started when the first buffer is full.
const NONE: u32 = 0;
/// One thread is being started.
const STARTING: u32 = 1;
/// Our thread runs.
const RUNNING: u32 = 2;
/// No thread of ours: the program's threads write.
const FORBIDDEN: u32 = 3;
/// Our thread has ended.
const STOPPED: u32 = 4;
/// Our thread was ended, and may come again.
const RETIRED: u32 = 5;

/// The writer's part of the process. Valid when all bytes are zero.
#[derive(Debug)]
pub struct Writer {
    state: AtomicU32,
    channel: AtomicPtr<Channel>,
    sink: AtomicPtr<Sink>,
    lock: AtomicU32,
    /// Counts what our thread should look at; it sleeps on it.
    calls: AtomicU32,
    asleep: AtomicU32,
    /// Threads that wait for a free buffer.
    pressed: AtomicU32,
    /// What our thread is to do before it ends, or before it goes on: [`GO_ON`], [`FINISH`] or [`RETIRE`].
    stop: AtomicU32,
    stopped: AtomicU32,
    /// The last moment has come: our thread is to take a last look.
    look: AtomicU32,
    looked: AtomicU32,
    /// The program's threads can't wake our thread: it looks often by itself.
    polls: AtomicU32,
    /// Our thread's id; the kernel stores 0 when it has gone.
    tid: AtomicU32,
    /// Full buffers, where a drainer may come; then nothing goes over the channel.
    pub left: Left,
}

const GO_ON: u32 = 0;
const FINISH: u32 = 1;
const RETIRE: u32 = 2;

/// The sink, held by one thread at a time, with signals blocked. What that thread allocates is not recorded.
pub(crate) struct Held<'a> {
    writer: &'a Writer,
    pub(crate) sink: &'a mut Sink,
    _ours: Unrecorded,
    _signals: Blocked,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.writer.lock.store(0, Ordering::Release);
    }
}

impl Writer {
    /// Gets the trace; from now on buffers can be handed over. A `channel` is made when it is needed, unless one is given.
    pub fn open(&self, channel: Option<Box<Channel>>, mut sink: Box<Sink>, may_have_thread: bool) {
        if !may_have_thread {
            // The program may use up its descriptors, and no thread of ours has others.
            sink.keep_open();
        }
        if let Some(channel) = channel {
            self.channel.store(Box::into_raw(channel), Ordering::Release);
        }
        self.sink.store(Box::into_raw(sink), Ordering::Release);
        if !may_have_thread {
            self.state.store(FORBIDDEN, Ordering::Release);
        }
    }

    pub(crate) fn channel(&self) -> Option<&Channel> {
        // SAFETY: set once, never freed.
        unsafe { self.channel.load(Ordering::Acquire).as_ref() }
    }

    /// The channel, which many processes never need. Where a filter may forbid us to find memory, it is made before.
    pub fn channel_for_sending(&self) -> &Channel {
        if let Some(channel) = self.channel() {
            return channel;
        }
        let _undisturbed = Blocked::all();
        let _ours = Unrecorded::begin();
        let made = Box::into_raw(Box::<Channel>::default());
        match self.channel.compare_exchange(null_mut(), made, Ordering::AcqRel, Ordering::Acquire) {
            // SAFETY: set once, never freed.
            Ok(_) => unsafe { &*made },
            Err(other) => {
                // SAFETY: nobody else has seen ours; the other one was set, and is never freed.
                unsafe {
                    drop(Box::from_raw(made));
                    &*other
                }
            }
        }
    }

    /// `None` where there is none, or its holder keeps it for too long.
    pub(crate) fn hold(&self) -> Option<Held<'_>> {
        let signals = Blocked::all();
        let ours = Unrecorded::begin();
        let mut turns = os::Turns::default();
        while self.lock.compare_exchange_weak(0, 1, Ordering::Acquire, Ordering::Relaxed).is_err() {
            if !turns.pass() {
                return None;
            }
        }
        // SAFETY: set once, never freed, and the lock makes us its only user.
        match unsafe { self.sink.load(Ordering::Acquire).as_mut() } {
            Some(sink) => Some(Held { writer: self, sink, _ours: ours, _signals: signals }),
            None => {
                self.lock.store(0, Ordering::Release);
                None
            }
        }
    }

    /// Takes a full buffer from a thread of the program, unless it turns out to be `abandoned`: a handler has forked
    /// this process meanwhile, and the buffer is its parent's.
    pub fn hand_over(&self, process: &'static Process, buffer: Buffer, abandoned: &AtomicU32) {
        if self.left.is_on() {
            return self.leave(process, buffer, abandoned);
        }
        let mut turns = os::Turns::default();
        loop {
            // A signal handler that sends inside of a send could wait for it without end.
            let blocked = Blocked::all();
            // A child that a handler made by number has not begun.
            if abandoned.load(Ordering::Relaxed) != 0 || process.phase() == Phase::Unborn {
                return;
            }
            let sent = self.channel_for_sending().send(buffer);
            drop(blocked);
            if sent {
                break;
            }
            if !self.write_if_nobody_does(process) && !turns.pass() {
                // In the spool it is all the same, where completion finds it.
                return end::end_recording(process, end::Reason::Stalled);
            }
            if process.phase() != Phase::Recording {
                return;
            }
        }
        if seal::forbids() {
            // Our thread looks by itself; without one it stays in the spool, where completion finds it.
            return;
        }
        if self.state.load(Ordering::Acquire) == NONE {
            self.start(process);
        }
        if self.state.load(Ordering::Acquire) != RUNNING {
            self.write_if_nobody_does(process);
        } else if self.has_enough() {
            self.call();
        }
    }

    /// True where so many buffers are waiting that they make frames of a good size.
    fn has_enough(&self) -> bool {
        self.pressed.load(Ordering::Relaxed) != 0
            || self.channel().is_some_and(|channel| channel.waiting() >= GATHER)
    }

    /// A thread is about to wait for a free buffer: nothing is gathered until it has one.
    pub fn press(&self) {
        self.pressed.fetch_add(1, Ordering::SeqCst);
        self.call();
    }

    /// The thread waits no longer.
    pub fn release(&self) {
        // In a child that a handler has forked meanwhile, nobody has pressed.
        let _ =
            self.pressed.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |pressed| pressed.checked_sub(1));
    }

    /// Wakes our thread.
    fn call(&self) {
        self.calls.fetch_add(1, Ordering::SeqCst);
        if self.asleep.load(Ordering::SeqCst) != 0 {
            futex::wake(&self.calls, 1);
        }
    }

    fn start(&self, process: &'static Process) {
        // In the child of a `vfork` the thread would be the child's, and end with it.
        if os::pid() != process.pid.load(Ordering::Relaxed) {
            return;
        }
        let _undisturbed = Blocked::all();
        if self.state.compare_exchange(NONE, STARTING, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            let state = if thread::spawn(process) { RUNNING } else { FORBIDDEN };
            // The thread may have said so itself, and stopped by now.
            let _ = self.state.compare_exchange(STARTING, state, Ordering::AcqRel, Ordering::Relaxed);
        }
    }

    /// Our thread has begun. Who makes it may be kept from saying so, while others want to know whose the sink is.
    fn runs(&self) {
        let _ = self.state.compare_exchange(STARTING, RUNNING, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// Waits until it is known whether a thread that is being started lives.
    fn await_start(&self) {
        let mut turns = os::Turns::default();
        while self.state.load(Ordering::Acquire) == STARTING && turns.pass() {}
    }

    /// Where no thread of ours lives, writes what is queued; true where something was.
    pub fn write_if_nobody_does(&self, process: &'static Process) -> bool {
        if seal::forbids() || matches!(self.state.load(Ordering::Acquire), STARTING | RUNNING) {
            return false;
        }
        if self.left.is_on() {
            return self.write_left(process);
        }
        self.hold_for_caller().is_some_and(|held| drain::queued(process, self, held.sink))
    }

    /// The sink for a thread of the program: not where our thread lives, or has made the sink its own since that was asked.
    fn hold_for_caller(&self) -> Option<Held<'_>> {
        if self.is_running() {
            return None;
        }
        self.hold().filter(|held| !held.sink.is_in_own_table())
    }

    /// Goes over to recording, and writes the early phase's buffers. Until that is done, nobody writes what threads have filled since.
    pub fn begin(&self, process: &'static Process) {
        let held = self.hold();
        process.set_phase(Phase::Recording);
        process.spool().take_notes();
        if let Some(held) = held {
            drain::early(process, held.sink);
        }
    }

    /// Writes what nobody can know once the process is gone; for at most `patience`.
    pub fn last_look(&self, process: &'static Process, patience: Duration) {
        if self.left.is_on() {
            self.drained_last_look(process, patience);
        } else if let Some(held) = self.hold_for_caller() {
            drain::last_look(process, held.sink);
        } else if self.is_running() {
            self.look.store(1, Ordering::SeqCst);
            self.call();
            futex::wait_while(&self.looked, 0, patience);
        }
    }

    /// From now on the trace stays open in the program's table, unless our thread has it in its own: it may not be possible to
    /// open it later.
    pub fn keep_open(&self) {
        if let Some(held) = self.hold_for_caller() {
            held.sink.keep_open();
        }
    }

    /// True where our thread lives.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.state.load(Ordering::Acquire) == RUNNING && self.tid.load(Ordering::Acquire) != 0
    }

    /// The program's threads will not be able to wake our thread: it is started now and looks often by itself.
    pub fn poll(&self, process: &'static Process) {
        self.polls.store(1, Ordering::SeqCst);
        self.let_drainer_poll(process, true);
        if self.state.load(Ordering::Acquire) == NONE {
            self.start(process);
        }
        self.await_start();
        self.call();
    }

    /// Our thread writes what there is and ends, for good or until [`Writer::unretire`]; for at most `patience`.
    pub fn retire(&self, process: &Process, patience: Duration) {
        self.let_drainer_poll(process, true);
        let _ = self.state.compare_exchange(NONE, RETIRED, Ordering::AcqRel, Ordering::Relaxed);
        self.await_start();
        if self.is_running() {
            self.stop.store(RETIRE, Ordering::SeqCst);
            self.call();
            let tid = self.tid.load(Ordering::Acquire);
            futex::wait_while(&self.tid, tid, patience);
        }
    }

    /// A new thread of ours may be started.
    pub fn unretire(&self, process: &Process) {
        self.let_drainer_poll(process, false);
        self.polls.store(0, Ordering::SeqCst);
        self.stop.store(GO_ON, Ordering::SeqCst);
        let _ = self.state.compare_exchange(RETIRED, NONE, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// Writes everything that there is and the end of the trace; true where it is complete. Our thread does it, or
    /// where there is none the caller; for at most `patience`.
    pub fn finish(&self, process: &'static Process, patience: Duration) -> bool {
        self.stop.store(FINISH, Ordering::SeqCst);
        if self.state.compare_exchange(NONE, FORBIDDEN, Ordering::AcqRel, Ordering::Acquire).is_ok()
            || matches!(self.state.load(Ordering::Acquire), FORBIDDEN | RETIRED)
        {
            return self.hold().is_some_and(|held| drain::finish(process, self, held.sink));
        }
        self.call();
        futex::wake(&self.calls, 1);
        futex::wait_while(&self.stopped, 0, patience);
        self.stopped.load(Ordering::Acquire) == 1
    }
}

#[cfg(loom)]
impl Writer {
    /// What stands for the trace, for a model's drainer.
    #[must_use]
    pub fn model_trace(&self) -> *mut Sink {
        self.sink.load(Ordering::Acquire)
    }
}

#[cfg(loom)]
impl crate::sync::model::Touch for Writer {
    fn touch(&self) {
        [&self.state, &self.lock, &self.calls, &self.asleep].iter().for_each(|word| word.touch());
        [&self.look, &self.looked, &self.polls, &self.tid].iter().for_each(|word| word.touch());
        [&self.pressed, &self.stop, &self.stopped].iter().for_each(|word| word.touch());
        self.channel.touch();
        self.sink.touch();
        self.left.touch();
    }
}
