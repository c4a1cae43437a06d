//! A process that has no thread of ours and that `memscope-cli run` drains: what its threads do with full buffers.
//!
//! A full buffer is marked and put on a list; the drainer finds the mark in the shared memory, writes what the buffer
//! holds, and marks it as drained; a thread that needs a buffer takes the drained ones off the list. Nothing of that is a
//! system call, unless the drainer sleeps or a thread must. Where no drainer has come, or it has gone, the thread
//! writes: who may is in one word of the spool's header (`memscope_shared::spool::role`).

use super::{Held, Writer, drain};
use crate::process::Process;
use crate::program::slow::LOOK_AGAIN;
use crate::spool::buffer::Buffer;
use crate::start::end;
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::sys::signal::Blocked;
use crate::sys::{futex, seal, time};
use core::time::Duration;
use memscope_shared::rhythm::GATHER;
use memscope_shared::spool::{header, role};

/// How long a drainer is waited for where none can come later.
const ARRIVAL: Duration = Duration::from_millis(200);

/// The buffers that threads have left to be written. Valid when all bytes are zero.
#[derive(Debug)]
pub struct Left {
    /// 1 where a drainer may come.
    on: AtomicU32,
    /// The last that was left; the others follow by their links.
    head: AtomicU64,
}

impl Left {
    /// A drainer may come.
    pub fn set_on(&self) {
        self.on.store(1, Ordering::Release);
    }

    /// True where a drainer may come, or has been.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed) == 1
    }

    /// Puts a buffer on the list.
    pub fn push(&self, buffer: Buffer) {
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            buffer.header().next.store(head, Ordering::Relaxed);
            let new = buffer.address() as u64;
            match self.head.compare_exchange_weak(head, new, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }

    /// Takes all of them off; they are the caller's.
    pub fn take_all(&self) -> impl Iterator<Item = Buffer> + use<> {
        let mut at = self.head.swap(0, Ordering::AcqRel);
        core::iter::from_fn(move || {
            // SAFETY: only addresses of buffers (or 0) are stored here.
            let buffer = unsafe { Buffer::at(at as *mut u8) }?;
            at = buffer.header().next.load(Ordering::Relaxed);
            Some(buffer)
        })
    }
}

#[cfg(loom)]
impl crate::sync::model::Touch for Left {
    fn touch(&self) {
        self.on.touch();
        self.head.touch();
    }
}

/// The words of the spool's header that process and drainer meet at.
struct Meeting<'a> {
    role: &'a AtomicU32,
    bell: &'a AtomicU32,
    asleep: &'a AtomicU32,
    left: &'a AtomicU32,
    returned: &'a AtomicU32,
    waiters: &'a AtomicU32,
    polls: &'a AtomicU32,
    last_look: &'a AtomicU32,
}

impl<'a> Meeting<'a> {
    fn of(process: &'a Process) -> Option<Self> {
        let half = |offset| process.spool().half(offset);
        Some(Self {
            role: half(header::ROLE)?,
            bell: half(header::BELL)?,
            asleep: half(header::ASLEEP)?,
            left: half(header::LEFT)?,
            returned: half(header::RETURNED)?,
            waiters: half(header::WAITERS)?,
            polls: half(header::POLLS)?,
            last_look: half(header::LAST_LOOK)?,
        })
    }

    /// Wakes the drainer.
    fn ring(&self) {
        self.bell.fetch_add(1, Ordering::SeqCst);
        if self.asleep.load(Ordering::SeqCst) != 0 && !seal::forbids() {
            futex::wake(self.bell, 1);
        }
    }

    /// True where so many buffers wait that they make frames of a good size.
    fn has_enough(&self) -> bool {
        let waiting = self.left.load(Ordering::Relaxed).wrapping_sub(self.returned.load(Ordering::Relaxed));
        waiting as usize >= GATHER || self.waiters.load(Ordering::SeqCst) != 0
    }
}

impl Writer {
    /// Where a drainer may come and has not let go, the words to meet it at.
    fn meeting<'a>(&self, process: &'a Process) -> Option<Meeting<'a>> {
        if self.left.is_on() { Meeting::of(process) } else { None }
    }

    /// Lets a drainer come from now on.
    pub fn let_drainer_come(&self, process: &Process) {
        self.meeting(process).into_iter().for_each(|meeting| role::end_writing(meeting.role));
    }

    /// True where a drainer has the claim, or may yet come (which ends with [`Writer::let_drainer_poll`]).
    pub fn may_be_drained(&self, process: &Process) -> bool {
        self.meeting(process).is_some_and(|meeting| role::Word::get(meeting.role) != role::OWN)
    }

    /// Leaves a full buffer to whoever writes, unless it is `abandoned` (see [`Writer::hand_over`]).
    pub(super) fn leave(&self, process: &'static Process, buffer: Buffer, abandoned: &AtomicU32) {
        let Some(meeting) = self.meeting(process) else { return };
        let is_private = buffer.header().private.load(Ordering::Relaxed) != 0;
        // A handler that forks leaves its child with none of this.
        let blocked = Blocked::all();
        if abandoned.load(Ordering::Relaxed) != 0 {
            return;
        }
        // Before others can find it on the list, write it and give it back.
        buffer.header().state.store(role::FULL, Ordering::Release);
        meeting.left.fetch_add(1, Ordering::Relaxed);
        self.left.push(buffer);
        if is_private {
            // No other process can see what is in it.
            role::recall(meeting.role);
            meeting.ring();
        }
        let is_drained = role::is_drained(meeting.role);
        if is_drained && meeting.has_enough() {
            meeting.ring();
        }
        drop(blocked);
        if !is_drained && !seal::forbids() {
            self.write_if_nobody_does(process);
        }
    }

    /// Gives back the buffers that the drainer has emptied.
    pub fn collect(&self, process: &Process) {
        let Some(meeting) = self.meeting(process) else { return };
        let mut collected = 0;
        for buffer in self.left.take_all() {
            if buffer.header().state.load(Ordering::Acquire) == role::DRAINED {
                process.pool.give(buffer);
                collected += 1;
            } else {
                self.left.push(buffer);
            }
        }
        if collected > 1 && meeting.waiters.load(Ordering::SeqCst) != 0 {
            // Who looked while they were in our hands found nothing.
            meeting.returned.fetch_add(1, Ordering::SeqCst);
            meeting.left.fetch_add(1, Ordering::Relaxed);
            futex::wake(meeting.returned, i32::MAX);
        }
    }

    /// The process has written and given back this many buffers that were left.
    pub(super) fn gave_back(&self, process: &Process, count: u32) {
        let Some(meeting) = self.meeting(process).filter(|_| count > 0) else { return };
        meeting.returned.fetch_add(count, Ordering::SeqCst);
        if meeting.waiters.load(Ordering::SeqCst) != 0 {
            futex::wake(meeting.returned, i32::MAX);
        }
    }

    /// What [`Writer::wait`] compares with: buffers given back by the process and by a drainer.
    #[must_use]
    pub fn returns(&self, process: &Process) -> (u32, u32) {
        let drained = self.meeting(process).map_or(0, |meeting| meeting.returned.load(Ordering::SeqCst));
        (process.pool.returns(), drained)
    }

    /// Waits a moment for a buffer to come back since `seen`; not for a thread that is `abandoned` (see [`Writer::hand_over`]).
    pub fn wait(&self, process: &'static Process, seen: (u32, u32), abandoned: &AtomicU32) {
        match self.meeting(process).filter(|meeting| role::is_drained(meeting.role)) {
            Some(meeting) => {
                meeting.waiters.fetch_add(1, Ordering::SeqCst);
                meeting.ring();
                futex::wait(meeting.returned, seen.1, LOOK_AGAIN);
                let _undisturbed = Blocked::all();
                if abandoned.load(Ordering::Relaxed) != 0 {
                    // The parent's drainer is met at these words.
                    return;
                }
                meeting.waiters.fetch_sub(1, Ordering::SeqCst);
                if meeting.returned.load(Ordering::SeqCst) == seen.1 {
                    self.look_after(&meeting);
                }
            }
            None => {
                self.press();
                process.pool.wait(seen.0, LOOK_AGAIN);
                self.release();
            }
        }
    }

    /// Takes the claim from a drainer that is dead: the lock that goes with it says so. The kernel takes that away only when
    /// the drainer's last write is over.
    fn look_after(&self, meeting: &Meeting<'_>) {
        if self.hold().is_some_and(|held| held.sink.drainer_is_dead()) {
            role::let_go(meeting.role);
        }
    }

    /// The sink, for a thread of the program that may write now.
    fn own_turn<'a>(&'a self, process: &'static Process, meeting: &Meeting<'_>) -> Option<Held<'a>> {
        if role::is_drained(meeting.role) {
            return None;
        }
        let held = self.hold()?;
        if !role::begin_writing(meeting.role) {
            return None;
        }
        // After a drainer nobody else but us comes.
        if role::Word::get(meeting.role) == role::OWN
            && let Err(error) = held.sink.catch_up()
        {
            drop(held);
            end::end_recording(process, end::Reason::WriteFailed(error));
            return None;
        }
        Some(held)
    }

    /// Writes what was left, where it is the program's turn; true where something was.
    pub(super) fn write_left(&self, process: &'static Process) -> bool {
        let Some(meeting) = self.meeting(process) else { return false };
        let Some(held) = self.own_turn(process, &meeting) else { return false };
        let any = drain::queued(process, self, held.sink);
        role::end_writing(meeting.role);
        any
    }

    /// A last look at a process that may be drained: by the drainer, or by the caller where there is none; for at most
    /// `patience`.
    pub(super) fn drained_last_look(&self, process: &'static Process, patience: Duration) {
        let Some(meeting) = self.meeting(process) else { return };
        let is_private = process.spool().word(header::PRIVATE_SINCE).is_some_and(|since| since.get() != 0);
        let deadline = time::monotonic_ns() + patience.as_nanos() as u64;
        if is_private {
            role::recall(meeting.role);
        } else {
            meeting.last_look.store(1, Ordering::SeqCst);
        }
        while role::is_drained(meeting.role) && time::monotonic_ns() < deadline {
            meeting.ring();
            if is_private {
                futex::wait(meeting.returned, meeting.returned.load(Ordering::SeqCst), LOOK_AGAIN / 10);
            } else {
                futex::wait(meeting.last_look, 1, LOOK_AGAIN);
                if meeting.last_look.load(Ordering::SeqCst) != 1 {
                    return;
                }
            }
            self.look_after(&meeting);
        }
        if let Some(held) = self.own_turn(process, &meeting) {
            drain::last_look(process, held.sink);
            role::end_writing(meeting.role);
        }
    }

    /// Says whether the drainer is to look often by itself. If so, and none has come, none comes any more: threads that can't
    /// make system calls would wait for it in vain.
    pub(super) fn let_drainer_poll(&self, process: &Process, polls: bool) {
        if let Some(meeting) = self.meeting(process) {
            meeting.polls.store(u32::from(polls), Ordering::SeqCst);
            meeting.ring();
            if polls {
                // It may be on its way.
                let deadline = time::monotonic_ns() + ARRIVAL.as_nanos() as u64;
                while role::Word::get(meeting.role) != role::OWN
                    && !role::is_drained(meeting.role)
                    && !seal::forbids()
                    && time::monotonic_ns() < deadline
                {
                    futex::wait(meeting.role, role::OPEN, LOOK_AGAIN / 100);
                }
                role::close(meeting.role);
            }
        }
    }
}
