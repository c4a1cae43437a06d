//! The functions behind the hooks: the next ones after ours in the program's order of libraries, so that a
//! program keeps whatever allocator it has.

use crate::arena;
use crate::list::{ALL, Hook, NAMES, REAL};
use core::ffi::{CStr, c_void};
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use memscope_recorder::program::{self, tls};
use memscope_recorder::sys::process;

const UNRESOLVED: u32 = 0;
const RESOLVING: u32 = 1;
const RESOLVED: u32 = 2;

static STATE: AtomicU32 = AtomicU32::new(UNRESOLVED);
/// True while a lookup of ours runs: what it allocates comes from the arena.
static LOOKING: AtomicBool = AtomicBool::new(false);
/// True where C++'s operators are the C++ library's own and end in our `malloc`.
static PLAIN_CXX: AtomicBool = AtomicBool::new(false);

/// Looks up all functions, once. Other threads wait; the looking thread's own calls come back at once
/// and are served by the arena.
#[cold]
#[inline(never)]
pub fn resolve() {
    if STATE.compare_exchange(UNRESOLVED, RESOLVING, Ordering::AcqRel, Ordering::Acquire).is_err() {
        while STATE.load(Ordering::Acquire) == RESOLVING && tls::get() != tls::OURS {
            process::yield_now();
        }
        return;
    }
    let _ours = tls::Unrecorded::begin();
    LOOKING.store(true, Ordering::Relaxed);
    for hook in ALL {
        // SAFETY: `dlsym` with a valid name.
        let address = unsafe { libc::dlsym(libc::RTLD_NEXT, NAMES[*hook as usize].as_ptr()) };
        set(*hook, address);
    }
    look_at_cxx();
    LOOKING.store(false, Ordering::Relaxed);
    STATE.store(RESOLVED, Ordering::Release);
}

/// Looks for a C++ operator that was not there at the start: its library came by `dlopen`.
#[cold]
#[inline(never)]
pub fn resolve_late(hook: Hook) -> usize {
    let _ours = tls::Unrecorded::begin();
    LOOKING.store(true, Ordering::Relaxed);
    for library in [c"libstdc++.so.6", c"libc++.so.1", c"libc++abi.so.1"] {
        // SAFETY: valid names; NOLOAD only asks for what is loaded, and the handle is kept for good.
        unsafe {
            let handle = libc::dlopen(library.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD);
            if !handle.is_null() {
                set(hook, libc::dlsym(handle, NAMES[hook as usize].as_ptr()));
            }
        }
        if REAL[hook as usize].load(Ordering::Acquire) != 0 {
            break;
        }
    }
    look_at_cxx();
    LOOKING.store(false, Ordering::Relaxed);
    REAL[hook as usize].load(Ordering::Acquire)
}

fn set(hook: Hook, address: *mut c_void) {
    REAL[hook as usize].store(address as usize, Ordering::Release);
}

/// Where the operators are those of the C++ library, they call `malloc` and `free`.
fn look_at_cxx() {
    // SAFETY: a valid name.
    let first_malloc = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"malloc".as_ptr()) };
    let ours = library_of(first_malloc as usize).zip(library_of(resolve as fn() as usize));
    let malloc_is_ours = ours.is_some_and(|(a, b)| a == b);
    let operators = ALL.iter().filter(|hook| **hook as usize >= Hook::New as usize);
    let mut plain = true;
    let mut any = false;
    for hook in operators {
        let address = REAL[*hook as usize].load(Ordering::Relaxed);
        if address != 0 {
            any = true;
            plain &= is_cxx_library(address);
            if (*hook as usize) < Hook::Delete as usize {
                program::add_forwarder(address, function_size(address));
            }
        }
    }
    PLAIN_CXX.store(any && plain && malloc_is_ours, Ordering::Release);
}

/// True where C++'s operators end in `malloc` and `free` as we see them.
#[inline(always)]
pub fn plain_cxx() -> bool {
    PLAIN_CXX.load(Ordering::Acquire)
}

fn info(address: usize) -> Option<libc::Dl_info> {
    let mut info = core::mem::MaybeUninit::<libc::Dl_info>::uninit();
    // SAFETY: `dladdr` takes any address, and fills the structure where it returns not 0.
    unsafe { (libc::dladdr(address as *const c_void, info.as_mut_ptr()) != 0).then(|| info.assume_init()) }
}

fn library_of(address: usize) -> Option<usize> {
    info(address).map(|info| info.dli_fbase as usize)
}

fn is_cxx_library(address: usize) -> bool {
    let Some(info) = info(address) else { return false };
    if info.dli_fname.is_null() {
        return false;
    }
    // SAFETY: the loader's name of the library, which stays loaded.
    let name = unsafe { CStr::from_ptr(info.dli_fname) }.to_bytes();
    let file = name.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    file.starts_with(b"libstdc++.so") || file.starts_with(b"libc++.so") || file.starts_with(b"libc++abi.so")
}

/// An upper bound of a function's size: operators are short.
fn function_size(_address: usize) -> usize {
    192
}

/// The address of the real function, 0 where there is none (yet).
#[inline(always)]
pub fn address(hook: Hook) -> usize {
    REAL[hook as usize].load(Ordering::Relaxed)
}

/// The real function, or `None` where there is none (yet).
///
/// # Safety
/// `T` is the type of a function pointer: that of the hooked function.
#[inline(always)]
pub unsafe fn next<T: Copy>(hook: Hook) -> Option<T> {
    const { assert!(size_of::<T>() == size_of::<usize>()) }
    let address = address(hook);
    // SAFETY: the address is that of the next function of this name, whose type the C standard, POSIX, glibc or the
    // C++ ABI fixes.
    (address != 0).then(|| unsafe { core::mem::transmute_copy(&address) })
}

/// True where a call is to be served by the arena: it comes from a lookup of ours.
#[cold]
#[inline(never)]
pub fn needs_arena() -> bool {
    if STATE.load(Ordering::Acquire) != RESOLVED {
        resolve();
    }
    tls::get() == tls::OURS && LOOKING.load(Ordering::Relaxed)
}

/// Makes sure that the lookup has been done.
#[inline(always)]
pub fn ready() {
    if address(Hook::Malloc) == 0 {
        resolve();
    }
}

/// True while lookups run; then [`needs_arena`] decides.
#[inline(always)]
pub fn looking() -> bool {
    LOOKING.load(Ordering::Relaxed)
}

/// A block for a lookup of ours.
#[cold]
pub fn arena_block(size: usize, align: usize) -> *mut c_void {
    arena::allocate(size, align)
}
