//! Cold entries: a thread's first call, and calls inside of calls.

use super::slow;
use super::stack::{self, Entry, Nested, StackState};
use super::thread::ThreadState;
use super::tls;
use crate::children;
use crate::process::{self, Phase, Process};
use crate::sync::atomic::Ordering;
use crate::sys::signal::Blocked;
use crate::sys::{own_stack, process as os, seal};
use crate::{clock, start};
use memscope_shared::record::{head, kind, thread_operand};

/// How deep signal handlers may interrupt each other's hooks. Beyond it their events are only counted.
const MAX_NESTING: usize = 16;

/// Begins a call that the fast path can't: the state with its guard taken, and what to put back into
/// the TLS word at the end (0: nothing).
///
/// # Safety
/// `word` is the TLS word, `sp` and `bp` those with which the program entered the hook.
#[cold]
#[inline(never)]
#[must_use]
pub unsafe fn begin_cold(word: usize, sp: usize, bp: usize) -> Option<(*mut ThreadState, usize)> {
    let word = match word {
        0 => {
            // On a half-made state nothing could be recorded of what a signal handler does.
            let _undisturbed = Blocked::all();
            match tls::get() {
                // SAFETY: as promised by the caller.
                0 => return unsafe { first_call(sp) }.map(|state| (state, 0)),
                // A handler has come first.
                word => word,
            }
        }
        word => word,
    };
    if !tls::is_state(word) {
        return None;
    }
    let state = word as *mut ThreadState;
    // SAFETY: the word is the address of this thread's state, whose hook is running or was left by a jump.
    unsafe {
        let outer = (*state).guard.load(Ordering::Relaxed);
        if outer == 0 {
            ThreadState::set_guard(state, sp);
            return Some((state, 0));
        }
        match stack::classify_nested(Entry { sp, bp }, outer, (*state).operator) {
            Nested::Reentrant => None,
            Nested::Stale => {
                (*state).operator = 0;
                ThreadState::set_guard(state, sp);
                Some((state, 0))
            }
            Nested::Signal | Nested::CalledOut => {
                let nested = nested_state(state)?;
                ThreadState::set_guard(nested, sp);
                tls::set(nested as usize);
                Some((nested, word))
            }
        }
    }
}

/// The first call of a thread: its new state, with the guard taken.
///
/// # Safety
/// The calling thread has no state; `sp` is that with which the program entered the hook.
unsafe fn first_call(sp: usize) -> Option<*mut ThreadState> {
    let process = process::get()?;
    if seal::forbids() {
        // What a new thread needs can't be made any more.
        slow::count_lost(process);
        return None;
    }
    tls::set(tls::OURS);
    let state = begin_process(process).then(|| thread_state(process)).flatten();
    let Some(state) = state else {
        if process.phase() == Phase::Off {
            tls::set(tls::PASSED_ON);
        } else {
            // No memory for a state now; the next call tries again.
            slow::count_lost(process);
            tls::set(0);
        }
        return None;
    };
    // SAFETY: the state is this thread's from now on.
    unsafe { ThreadState::set_guard(state, sp) };
    tls::set(state as usize);
    Some(state)
}

/// Makes sure that the process has begun to be recorded; false where it is not to be.
fn begin_process(process: &'static Process) -> bool {
    if process.phase() == Phase::Unborn && seal::forbids() {
        process.set_phase(Phase::Off);
    }
    if process.phase() == Phase::Unborn {
        let forked = process::born();
        process.leave_unborn(|| {
            clock::choose();
            // SAFETY: one thread runs this, and others wait for the phase.
            unsafe { *process.first_sample.get() = clock::sample() };
            if forked {
                stack::reset_after_fork();
                children::forked();
                // Wherever the child is, and however little stack is left there.
                own_stack::call(|| start::forked_child(process));
            } else {
                process::set_born();
                process.set_phase(Phase::Early);
            }
        });
    }
    !matches!(process.phase(), Phase::Off | Phase::Unborn)
}

/// Begins the process if nothing has been called in it yet.
pub fn ensure_begun(process: &'static Process) {
    begin_process(process);
}

/// Gives the calling thread its state, unless a hook of it runs.
pub fn begin_thread() {
    let marker = 0_usize;
    let sp = &raw const marker as usize;
    let state = match tls::get() {
        // SAFETY: nothing unwinds from this call; the guard's sp only has to lie in this frame.
        0 => unsafe { begin_cold(0, sp, 0) }.map(|(state, _)| state),
        word => tls::is_state(word).then_some(word as *mut ThreadState),
    };
    let Some(state) = state else { return };
    // SAFETY: the calling thread's own state, with its guard taken meanwhile.
    unsafe {
        let guard = (*state).guard.load(Ordering::Relaxed);
        if guard == 0 || guard == sp {
            ThreadState::set_guard(state, sp);
            slow::ready(state);
            ThreadState::set_guard(state, 0);
        }
    }
}

/// Runs when recording has started: moves the calling thread's early records into the spool, and records the
/// modules that are loaded.
pub fn take_stock() {
    let marker = 0_usize;
    let sp = &raw const marker as usize;
    if tls::get() == 0 {
        // SAFETY: nothing unwinds from this call; the guard's sp only has to lie in this frame.
        if let Some((state, _)) = unsafe { begin_cold(0, sp, 0) } {
            // SAFETY: the calling thread's own state.
            unsafe { ThreadState::set_guard(state, 0) };
        }
    }
    let word = tls::get();
    if !tls::is_state(word) {
        return;
    }
    let state = word as *mut ThreadState;
    // SAFETY: the calling thread's own state, with its guard taken meanwhile.
    unsafe {
        ThreadState::set_guard(state, sp);
        if slow::ready(state) {
            stack::startup_modules(&mut slow::StreamSink::new(state));
        }
        ThreadState::set_guard(state, 0);
    }
}

/// Records that the calling thread's destructors have run, and lets its state be used again once it is gone.
pub fn thread_ends(state: usize) {
    if tls::get() != state || !tls::is_state(state) {
        return;
    }
    let marker = 0_usize;
    let state = state as *mut ThreadState;
    let Some(process) = process::get() else { return };
    // SAFETY: the calling thread's own state, with its guard taken meanwhile.
    unsafe {
        if (*state).stream.load(Ordering::Relaxed) == 0 {
            return;
        }
        ThreadState::set_guard(state, &raw const marker as usize);
        if slow::ready(state) {
            let (number, tid) =
                ((*state).number.load(Ordering::Relaxed), (*state).tid.load(Ordering::Relaxed));
            let (a, b) = if seal::forbids() {
                ((*state).name[0].load(Ordering::Relaxed), (*state).name[1].load(Ordering::Relaxed))
            } else {
                name_words(os::thread_name())
            };
            ThreadState::put(
                state,
                [head(kind::THREAD_END, thread_operand(number, tid)), clock::stamp(), a, b],
            );
        }
        ThreadState::set_guard(state, 0);
        if (*state).ending.swap(1, Ordering::AcqRel) == 0 {
            process.ending.fetch_add(1, Ordering::AcqRel);
        }
    }
}

/// A state for the calling thread: one whose thread has gone, or a new one.
fn thread_state(process: &'static Process) -> Option<*mut ThreadState> {
    let state = match reuse(process) {
        Some(state) => state,
        None => {
            let state = ThreadState::map()?;
            // SAFETY: new and in no list.
            unsafe { enlist(process, state) };
            state
        }
    };
    let number = process.threads.fetch_add(1, Ordering::Relaxed) + 1;
    // SAFETY: the state is ours now.
    unsafe { announce(state, number, tid(process)) };
    start::watch_thread_end(state as usize);
    Some(state)
}

/// The calling thread's id. The child of a `vfork` is not the thread that it runs as, and ends before that: a thread
/// that outlives it stands for it.
fn tid(process: &Process) -> u32 {
    let pid = process.pid.load(Ordering::Relaxed);
    if os::pid() == pid { os::tid() } else { pid }
}

/// # Safety
/// The state is mapped, in no list and the calling thread's own.
unsafe fn enlist(process: &Process, state: *mut ThreadState) {
    // SAFETY: as promised.
    unsafe {
        (*state).stream.store(process.streams.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
        process.pool.owners_changed(1);
        ThreadState::publish(state, &process.states);
    }
}

/// Sets number and tid, and writes the record that says whose the stream is from here on.
///
/// # Safety
/// The calling thread owns the state.
unsafe fn announce(state: *mut ThreadState, number: u32, tid: u32) {
    let name = os::thread_name();
    let (a, b) = name_words(name);
    // SAFETY: as promised.
    unsafe {
        (*state).name[0].store(a, Ordering::Relaxed);
        (*state).name[1].store(b, Ordering::Relaxed);
        (*state).number.store(number, Ordering::Release);
        (*state).tid.store(tid, Ordering::Release);
        if slow::ready(state) {
            let operand = thread_operand(number, tid);
            ThreadState::put(state, [head(kind::THREAD_START, operand), clock::stamp(), a, b]);
        }
    }
}

/// A thread's name as the two words of a record.
#[must_use]
pub fn name_words(name: [u8; 16]) -> (u64, u64) {
    let whole = u128::from_le_bytes(name);
    (whole as u64, (whole >> 64) as u64)
}

/// A state whose thread's destructors have run and that the kernel no longer knows.
fn reuse(process: &'static Process) -> Option<*mut ThreadState> {
    if process.ending.load(Ordering::Relaxed) == 0 {
        return None;
    }
    let pid = process.pid.load(Ordering::Relaxed);
    process.each_state().find_map(|state| {
        let tid = state.tid.load(Ordering::Acquire);
        if state.ending.load(Ordering::Acquire) == 0 || tid == 0 || os::thread_exists(pid, tid) {
            return None;
        }
        state.tid.compare_exchange(tid, 0, Ordering::AcqRel, Ordering::Relaxed).ok()?;
        process.ending.fetch_sub(1, Ordering::Relaxed);
        let state = core::ptr::from_ref(state).cast_mut();
        // SAFETY: its thread is gone, and the exchange made it ours.
        unsafe {
            ThreadState::clear_owner(state);
            StackState::adopt(ThreadState::stack(state));
        }
        Some(state)
    })
}

/// A forked child's thread: its state is wiped, but its address still in the TLS word. Sets the state up
/// again for the new process image; false where that is not recorded.
///
/// # Safety
/// The calling thread owns the state, whose bytes are zero.
pub unsafe fn reborn(state: *mut ThreadState) -> bool {
    // As in `begin_cold`.
    let _undisturbed = Blocked::all();
    let word = tls::get();
    tls::set(tls::OURS);
    let ok = process::get().is_some_and(|process| {
        if !begin_process(process) {
            return false;
        }
        let number = process.threads.fetch_add(1, Ordering::Relaxed) + 1;
        // SAFETY: wiped, so in no list, and ours.
        unsafe {
            enlist(process, state);
            announce(state, number, os::tid());
        }
        true
    });
    tls::set(word);
    ok
}

/// The state for signal handlers that interrupt a hook which runs on `state`.
///
/// # Safety
/// The calling thread owns `state`.
unsafe fn nested_state(state: *mut ThreadState) -> Option<*mut ThreadState> {
    // SAFETY: as promised; nested states belong to the same thread.
    unsafe {
        let number = (*state).number.load(Ordering::Relaxed);
        let mut nested = (*state).nested.load(Ordering::Relaxed);
        if nested.is_null() {
            let process = process::get()?;
            let depth = core::iter::successors(state.as_ref(), |s| s.outer.load(Ordering::Relaxed).as_ref());
            if number == 0 || depth.count() > MAX_NESTING {
                slow::count_lost(process);
                return None;
            }
            // Signals that come faster than this is done would pile up handlers in it.
            let _undisturbed = Blocked::all();
            let Some(fresh) = ThreadState::map() else {
                slow::count_lost(process);
                return None;
            };
            nested = fresh;
            (*nested).outer.store(state, Ordering::Relaxed);
            enlist(process, nested);
            (*state).nested.store(nested, Ordering::Relaxed);
        }
        if (*nested).number.load(Ordering::Relaxed) != number {
            announce(nested, number, (*state).tid.load(Ordering::Relaxed));
            StackState::adopt(ThreadState::stack(nested));
        }
        Some(nested)
    }
}

/// Makes what signal handlers that interrupt the calling thread's hooks will need. `word` is the thread's TLS word.
pub fn prepare_nested(word: usize) {
    if tls::is_state(word) {
        // SAFETY: the word is the address of the calling thread's state; the nested one is only made.
        let _ = unsafe { nested_state(word as *mut ThreadState) };
    }
}
