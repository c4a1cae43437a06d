//! The functions behind the hooks: the next ones after ours in the program's order of libraries, so that a
//! program keeps whatever allocator it has.

use crate::arena;
use crate::list::{ALL, Hook, NAMES, REAL};
use core::ffi::c_void;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use memscope_recorder::program::{self, tls};
use memscope_recorder::symbols::{self, Module};
use memscope_recorder::sys::process;

const UNRESOLVED: u32 = 0;
const RESOLVING: u32 = 1;
const RESOLVED: u32 = 2;

static STATE: AtomicU32 = AtomicU32::new(UNRESOLVED);
/// True while a lookup of ours runs: what it allocates comes from the arena.
static LOOKING: AtomicBool = AtomicBool::new(false);
/// True where C++'s operators are the C++ library's own and end in our `malloc`.
static PLAIN_CXX: AtomicBool = AtomicBool::new(false);

/// An upper bound of the size of an `operator new`.
const OPERATOR_SIZE: usize = 192;

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
    let mut operators = Operators::default();
    for &hook in ALL {
        if let Some((address, module)) = symbols::next(NAMES[hook as usize]) {
            operators.found(hook, address, module);
            REAL[hook as usize].store(address, Ordering::Release);
        }
    }
    operators.settle();
    LOOKING.store(false, Ordering::Relaxed);
    STATE.store(RESOLVED, Ordering::Release);
}

/// Looks for a C++ operator that was not there at the start: its library came by `dlopen`, possibly with names
/// of its own scope only.
#[cold]
#[inline(never)]
pub fn resolve_late(hook: Hook) -> usize {
    let _ours = tls::Unrecorded::begin();
    let mut operators = Operators::default();
    let libraries = symbols::modules().filter(is_cxx_library);
    for library in libraries {
        for &hook in ALL.iter().filter(|hook| **hook >= Hook::New) {
            if let Some(address) = library.symbol(NAMES[hook as usize]) {
                operators.found(hook, address, library);
                REAL[hook as usize].store(address, Ordering::Release);
            }
        }
    }
    operators.settle();
    REAL[hook as usize].load(Ordering::Acquire)
}

/// Whose the C++ operators are.
#[derive(Default)]
struct Operators {
    any: bool,
    foreign: bool,
}

impl Operators {
    fn found(&mut self, hook: Hook, address: usize, module: Module) {
        if hook >= Hook::New {
            self.any = true;
            self.foreign |= !is_cxx_library(&module);
            if hook < Hook::Delete {
                program::add_forwarder(address, OPERATOR_SIZE);
            }
        }
    }

    /// The C++ library's operators call the program's first `malloc`, which may be the program's own or that of a
    /// library that was preloaded before us.
    fn settle(&self) {
        let first = symbols::first(NAMES[Hook::Malloc as usize]).map(|(_, module)| module);
        let ours = first.is_some() && first == symbols::own();
        PLAIN_CXX.store(self.any && !self.foreign && ours, Ordering::Release);
    }
}

fn is_cxx_library(module: &Module) -> bool {
    let file = module.file_name();
    [b"libstdc++.so".as_slice(), b"libc++.so", b"libc++abi.so"].iter().any(|name| file.starts_with(name))
}

/// True where C++'s operators end in `malloc` and `free` as we see them.
#[inline(always)]
pub fn plain_cxx() -> bool {
    PLAIN_CXX.load(Ordering::Acquire)
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
