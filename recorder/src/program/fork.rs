//! Forks, as far as they can be seen: libc calls these handlers around its `fork`, our hook around `_Fork`.
//!
//! A child finds the recorder's state wiped, however it was made, and begins anew with its first call. That is enough
//! but for one case: a signal handler that has interrupted a hook of ours may fork, and the child goes on in the
//! middle of that hook. Its state must not be wiped under its hands, and what it still writes must not reach
//! its parent's buffers. So such a state stays in the child, with a buffer that is memory of its own; the call
//! belongs to nobody (its block is inherited), and the thread gets another state at once. (Where a filter forbids to ask the kernel
//! for that, the state is [carried over](carried).) What a hook does with memory that is wiped in the child, or with another
//! process's buffers, it does with signals blocked.

use super::birth;
use super::carried;
pub use super::carried::prepare as prepare_for_seal;
use super::thread::ThreadState;
use super::tls;
use crate::children;
use crate::process;
use crate::sys::{process as os, seal};
use core::sync::atomic::{AtomicU64, Ordering};

/// This process and its parent when it was forked, 32 bits each.
static MADE: AtomicU64 = AtomicU64::new(0);

/// The process that this one was forked from, though it may have ended by now.
#[must_use]
pub fn parent() -> Option<u32> {
    let made = MADE.load(Ordering::Relaxed);
    ((made >> 32) as u32 == os::pid()).then_some(made as u32)
}

/// The calling thread's states, from the innermost on, if a hook that runs on one of them has been interrupted.
fn interrupted() -> impl Iterator<Item = *mut ThreadState> {
    let word = tls::get();
    let first = if tls::is_state(word) { word as *const ThreadState } else { core::ptr::null() };
    let outer = |state: &&'static ThreadState| {
        // SAFETY: the outer state is the same thread's and mapped for good.
        unsafe { state.outer.load(Ordering::Relaxed).as_ref() }
    };
    // SAFETY: the word is the address of this thread's state.
    let states = core::iter::successors(unsafe { first.as_ref() }, outer);
    let is_running = states.clone().any(|state| state.guard.load(Ordering::Relaxed) != 0);
    states.filter(move |_| is_running).map(|state| core::ptr::from_ref(state).cast_mut())
}

/// In the parent, before.
pub extern "C" fn before() {
    if seal::forbids() {
        // SAFETY: the calling thread's own.
        return unsafe { carried::aside(interrupted()) };
    }
    for state in interrupted() {
        // SAFETY: the calling thread's own; a copy of it is what the child is to have.
        unsafe { ThreadState::set_fate(state, libc::MADV_KEEPONFORK) };
    }
}

/// In the parent, after.
pub extern "C" fn after() {
    if seal::forbids() {
        return carried::done(tls::get());
    }
    for state in interrupted() {
        // SAFETY: the calling thread's own.
        unsafe { ThreadState::set_fate(state, libc::MADV_WIPEONFORK) };
    }
}

/// In the child.
pub extern "C" fn child() {
    MADE.store(u64::from(os::pid()) << 32 | u64::from(os::parent_pid()), Ordering::Relaxed);
    children::forked();
    if seal::forbids() {
        carried::back(tls::get());
    }
    let mut any = false;
    for state in interrupted() {
        any = true;
        // SAFETY: the calling thread's own, which the child has a copy of.
        unsafe {
            ThreadState::part(state);
            ThreadState::abandon(state);
        }
    }
    if any {
        tls::set(0);
        begin();
    }
}

/// Gives the calling thread a state of the new process image.
fn begin() {
    let marker = 0_usize;
    // SAFETY: nothing unwinds from this call; the guard's sp only has to lie in this frame.
    if let Some((state, _)) = unsafe { birth::begin_cold(0, &raw const marker as usize, 0) } {
        // SAFETY: the calling thread's own state.
        unsafe { ThreadState::set_guard(state, 0) };
    }
}

/// Records what an interrupted hook of the parent's has found out in the child: nodes are everybody's.
#[cold]
pub fn adopt(from: *mut ThreadState, put: impl FnOnce(*mut ThreadState)) {
    let word = tls::get();
    let marker = 0_usize;
    if !tls::is_state(word) || word == from as usize || process::get().is_none() {
        return;
    }
    let state = word as *mut ThreadState;
    // SAFETY: the calling thread's own state; the guard is taken where no hook of it runs.
    unsafe {
        let free = (*state).guard.load(Ordering::Relaxed) == 0;
        if free {
            ThreadState::set_guard(state, &raw const marker as usize);
        }
        put(state);
        if free {
            ThreadState::set_guard(state, 0);
        }
    }
}
