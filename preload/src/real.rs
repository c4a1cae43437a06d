//! The functions behind the hooks: the next ones after ours in the program's order of libraries, so that a
//! program keeps whatever allocator it has.

use crate::arena;
use crate::list::{ALL, Hook, NAMES, REAL};
use core::ffi::c_void;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use memscope_recorder::program::tls;
use memscope_recorder::symbols::{self, Module};
use memscope_recorder::sys::process;
use memscope_recorder::sys::signal::Blocked;

const UNRESOLVED: u32 = 0;
const RESOLVING: u32 = 1;
const RESOLVED: u32 = 2;

static STATE: AtomicU32 = AtomicU32::new(UNRESOLVED);
/// True while a lookup of ours runs: what it allocates comes from the arena.
static LOOKING: AtomicBool = AtomicBool::new(false);
/// A [`Cxx`] as a number.
static CXX: AtomicU32 = AtomicU32::new(Cxx::Through as u32);

/// Whose C++'s operators are, and so what our hooks of them do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Cxx {
    /// The C++ library's, which end in `malloc` and `free`, but the program has replaced some of them or of those: our
    /// hooks only pass the calls on, and `malloc` and `free` are recorded.
    Through,
    /// All of them the C++ library's, and `malloc` and `free` ours: our hooks do what the operators would do, so
    /// that the stack starts at the operator's caller.
    Plain,
    /// An allocator's own: recorded like `malloc` and `free`.
    Own,
}

/// Looks up all functions, once. Other threads wait for it, or do it themselves where it takes too long; the looking thread's own calls come back at once
/// and are served by the arena.
#[cold]
#[inline(never)]
pub fn resolve() {
    let _undisturbed = Blocked::all();
    if STATE.compare_exchange(UNRESOLVED, RESOLVING, Ordering::AcqRel, Ordering::Acquire).is_err() {
        let mut turns = process::Turns::default();
        loop {
            if STATE.load(Ordering::Acquire) != RESOLVING || tls::get() == tls::OURS {
                return;
            }
            if !turns.pass() {
                break;
            }
        }
    }
    let _ours = tls::Unrecorded::begin();
    LOOKING.store(true, Ordering::Relaxed);
    let mut operators = Operators::default();
    for &hook in ALL {
        if let Some((address, module)) = symbols::next(NAMES[hook as usize]) {
            operators.found(hook, module);
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
        for &hook in ALL.iter().filter(|hook| hook.is_operator()) {
            if let Some(address) = library.symbol(NAMES[hook as usize]) {
                operators.found(hook, library);
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
    fn found(&mut self, hook: Hook, module: Module) {
        if hook.is_operator() {
            self.any = true;
            self.foreign |= !is_cxx_library(&module);
        }
    }

    fn settle(&self) {
        let cxx = match (self.any, self.foreign) {
            (true, true) => Cxx::Own,
            (true, false) if nothing_is_replaced() => Cxx::Plain,
            _ => Cxx::Through,
        };
        CXX.store(cxx as u32, Ordering::Release);
    }
}

/// True where the program's calls of `malloc`, `free` and all operators come to us first: neither the program itself
/// nor a library that was preloaded before us defines any of them.
fn nothing_is_replaced() -> bool {
    let Some(own) = symbols::own() else { return false };
    let ours = |hook: &&Hook| symbols::first(NAMES[**hook as usize]).is_some_and(|(_, module)| module == own);
    ALL.iter()
        .filter(|hook| hook.is_operator() || matches!(hook, Hook::Malloc | Hook::Free))
        .all(|hook| ours(&hook))
}

fn is_cxx_library(module: &Module) -> bool {
    let file = module.file_name();
    [b"libstdc++.so".as_slice(), b"libc++.so", b"libc++abi.so"].iter().any(|name| file.starts_with(name))
}

/// Whose C++'s operators are.
#[inline(always)]
pub fn cxx() -> Cxx {
    match CXX.load(Ordering::Acquire) {
        1 => Cxx::Plain,
        2 => Cxx::Own,
        _ => Cxx::Through,
    }
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
