//! The end of a thread: a pthread key's destructor.
//!
//! The destructor only marks the state; the thread may go on to call `free` in other destructors and inside of
//! libc. State and buffer are taken back once the kernel no longer knows the thread.

use crate::program::birth;
use crate::symbols;
use core::ffi::c_void;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

/// 0: no key; else the key + 1.
static KEY: AtomicU32 = AtomicU32::new(0);

/// libc runs the destructors this many times while values are set; the last time is ours.
const ROUNDS: usize = 4;

type Create = unsafe extern "C" fn(*mut u32, Option<unsafe extern "C" fn(*mut c_void)>) -> i32;
type SetSpecific = unsafe extern "C" fn(u32, *const c_void) -> i32;

/// `pthread_setspecific`; 0 where there is none.
static SET_SPECIFIC: AtomicUsize = AtomicUsize::new(0);

/// `pthread_key_create`, where the program is linked with it.
static CREATE: AtomicUsize = AtomicUsize::new(0);

/// Tells the addresses of `pthread_key_create` and `pthread_setspecific`: for a recorder that is linked into a program, possibly one
/// without a dynamic loader that could be asked.
pub fn provide_thread_keys(create: usize, set_specific: usize) {
    SET_SPECIFIC.store(set_specific, Ordering::Release);
    CREATE.store(create, Ordering::Release);
}

/// Makes the key. Before glibc 2.34 the functions lie in libpthread: a program without it has no threads.
pub fn make_key() {
    let find = |name, provided: &AtomicUsize| {
        let known = provided.load(Ordering::Acquire);
        if known != 0 { Some(known) } else { symbols::first(name).map(|(address, _)| address) }
    };
    let Some(create) = find(c"pthread_key_create", &CREATE) else { return };
    let Some(set) = find(c"pthread_setspecific", &SET_SPECIFIC) else { return };
    SET_SPECIFIC.store(set, Ordering::Release);
    let mut key = 0;
    // SAFETY: POSIX fixes the function's type; `key` is writable, and the destructor stays loaded.
    let made = unsafe { core::mem::transmute::<usize, Create>(create)(&raw mut key, Some(thread_ends)) };
    if made == 0 {
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
        let function = SET_SPECIFIC.load(Ordering::Acquire);
        // SAFETY: the key exists, so the function was found; the value is only a number to libc.
        unsafe { core::mem::transmute::<usize, SetSpecific>(function)(key - 1, value as *const c_void) };
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
