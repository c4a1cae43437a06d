//! The end of a thread: a pthread key's destructor.
//!
//! The destructor only marks the state; the thread may go on to call `free` in other destructors and inside of
//! libc. State and buffer are taken back once the kernel no longer knows the thread.

use crate::program::birth;
use core::ffi::c_void;
use core::sync::atomic::{AtomicU32, Ordering};

/// 0: no key; else the key + 1.
static KEY: AtomicU32 = AtomicU32::new(0);

/// libc runs the destructors this many times while values are set; the last time is ours.
const ROUNDS: usize = 4;

/// Makes the key. Threads from before it are taken back by nobody; there are few.
pub fn make_key() {
    let mut key = 0;
    // SAFETY: `key` is writable; the destructor is a function that stays loaded.
    if unsafe { libc::pthread_key_create(&raw mut key, Some(thread_ends)) } == 0 {
        KEY.store(key + 1, Ordering::Release);
    }
}

/// Sees to it that the end of the calling thread is noticed.
pub fn watch_thread_end(state: usize) {
    set(state);
}

fn set(value: usize) {
    let key = KEY.load(Ordering::Acquire);
    if key != 0 {
        // SAFETY: the key exists; the value is only a number to libc.
        unsafe { libc::pthread_setspecific(key - 1, value as *const c_void) };
    }
}

/// The value is the state's address (page aligned) plus the rounds that have passed.
unsafe extern "C" fn thread_ends(value: *mut c_void) {
    let (state, rounds) = (value as usize & !(ROUNDS - 1), value as usize & (ROUNDS - 1));
    if rounds + 1 < ROUNDS {
        set(state + rounds + 1);
    } else {
        birth::thread_ends(state);
    }
}
