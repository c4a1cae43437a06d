//! The ordinary call of `malloc` and `free`, as short as can be: what [`super::Op`] does, where nothing is unusual.
//!
//! The thread is known, no hook of it runs, stamps are TSC readings, the buffer has room, and the stack is one that was
//! captured lately. Whatever else comes up is left to a function out of line that ends the call: so hardly anything has to
//! be kept in registers over the real function, and nothing is put onto the stack that is not used.

use super::slow::{self, StreamSink};
use super::stack::{self, Entry, StackState};
use super::thread::ThreadState;
use super::tls;
use crate::clock;
use core::ffi::c_void;
use core::mem::forget;
use core::sync::atomic::Ordering;
use memscope_shared::record::{head, kind};

/// Kinds of the record of a block.
const KINDS: [u8; 2] = [kind::ALLOC, kind::ALLOC_LARGE];

/// An ordinary call that is to be recorded. When dropped, also by an exception, it is over.
#[derive(Debug)]
pub struct Quick {
    state: *mut ThreadState,
    sp: usize,
    bp: usize,
}

impl Quick {
    /// Begins a call. `None` is for [`super::Op::begin`].
    ///
    /// # Safety
    /// As for [`super::Op::begin`].
    #[inline(always)]
    #[must_use]
    pub unsafe fn begin(sp: usize, bp: usize) -> Option<Self> {
        let word = tls::get();
        if !tls::is_state(word) || !clock::is_tsc() {
            return None;
        }
        let state = word as *mut ThreadState;
        // SAFETY: the TLS word is 0, OURS, PASSED_ON or the address of this thread's state.
        unsafe {
            if (*state).guard.load(Ordering::Relaxed) != 0 {
                return None;
            }
            ThreadState::set_guard(state, sp);
        }
        Some(Self { state, sp, bp })
    }

    /// Begins a call that is to allocate so many bytes; those of a large block are not ordinary.
    ///
    /// # Safety
    /// As for [`super::Op::begin`].
    #[inline(always)]
    #[must_use]
    pub unsafe fn begin_allocating(size: usize, sp: usize, bp: usize) -> Option<Self> {
        // SAFETY: passed on.
        if size > u32::MAX as usize { None } else { unsafe { Self::begin(sp, bp) } }
    }

    /// Records that a block is about to be freed; false where [`super::Op`] is to do that, after this call is over.
    #[inline(always)]
    #[must_use]
    pub fn freeing(&self, block: *mut c_void) -> bool {
        // SAFETY: `sp` is the address of the return address, which stays there until the hook returns.
        if stack::is_loader(unsafe { *(self.sp as *const usize) }) {
            return false;
        }
        let words = [head(kind::FREE, block as u64), clock::tsc()];
        // SAFETY: we hold the guard of our own state.
        unsafe { ThreadState::try_put(self.state, words) }
    }

    /// The allocator has returned: records the block, or that there is none, and ends the call.
    ///
    /// # Safety
    /// The block is what the allocator has returned, and the call was begun by [`Quick::begin_allocating`] for this size.
    #[inline(always)]
    #[must_use]
    pub unsafe fn allocated(self, block: *mut c_void, size: usize) -> *mut c_void {
        let Self { state, sp, bp } = self;
        let stamp = clock::tsc();
        // SAFETY: we hold the guard of our own state; `sp` and `bp` are the hook's caller's.
        unsafe {
            if block.is_null() || ThreadState::is_due(state) {
                forget(self);
                return allocated_otherwise(state, sp, bp, block, size, stamp);
            }
            let entry = Entry { sp, bp };
            match StackState::recall(ThreadState::stack(state), entry) {
                Ok(stack) => {
                    let stack = u64::from(StackState::checked(stack, entry, &mut StreamSink::new(state)));
                    // In a child that a signal handler has just forked, this goes to memory of its own.
                    ThreadState::put(
                        state,
                        [head(kind::ALLOC, block as u64), stamp, stack << 32 | size as u64],
                    );
                    block
                }
                Err(miss) => {
                    // Into the state: a seventh argument would have to be put onto the stack.
                    (*state).miss = miss;
                    forget(self);
                    allocated_elsewhere(state, sp, bp, block, size, stamp)
                }
            }
        }
    }
}

impl Drop for Quick {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: we hold the guard of our own state.
        unsafe { ThreadState::set_guard(self.state, 0) };
    }
}

/// The end of a call that was not that ordinary.
///
/// # Safety
/// The calling thread owns the state and holds its guard; `sp` and `bp` are the hook's caller's.
#[inline(never)]
unsafe fn allocated_otherwise(
    state: *mut ThreadState,
    sp: usize,
    bp: usize,
    block: *mut c_void,
    size: usize,
    stamp: u64,
) -> *mut c_void {
    let call = Quick { state, sp, bp };
    // SAFETY: as promised.
    unsafe {
        if block.is_null() {
            slow::put_short(state, [head(kind::FAILED, 0), stamp]);
        } else {
            slow::start(state, KINDS, block as usize, size, stamp, |stack, sink| {
                StackState::capture(stack, Entry { sp, bp }, sink)
            });
        }
    }
    drop(call);
    block
}

/// The end of an ordinary call whose stack was not found at the first look: [`ThreadState::miss`] says how far that led.
///
/// # Safety
/// As for [`allocated_otherwise`], for a block of less than 4 GiB.
#[inline(never)]
unsafe fn allocated_elsewhere(
    state: *mut ThreadState,
    sp: usize,
    bp: usize,
    block: *mut c_void,
    size: usize,
    stamp: u64,
) -> *mut c_void {
    let call = Quick { state, sp, bp };
    // SAFETY: as promised.
    unsafe {
        slow::start(state, KINDS, block as usize, size, stamp, |stack, sink| {
            StackState::capture_missed(stack, Entry { sp, bp }, (*state).miss, sink)
        });
    }
    drop(call);
    block
}
