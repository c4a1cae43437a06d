//! The allocator with the recorder behind it.
//!
//! As the hooks of `libmemscope.so`, each function begins with a stub that passes on where the caller's return address and frame
//! pointer are: a stack begins at the caller of the allocation. What the recorder allocates for itself comes to this
//! allocator as well; its threads are marked then, and are served from the recorder's own heap.

use memscope_recorder::program::{Op, naming, tls};
use memscope_recorder::region::RegionHeap;
use memscope_recorder::{start, symbols};
use std::alloc::{GlobalAlloc, Layout, System};
use std::arch::naked_asm;
use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicU8, Ordering};

/// Nothing was called yet.
const NEW: u8 = 0;
/// The calls are recorded.
const RECORDING: u8 = 1;
/// The calls are passed on: `libmemscope.so` records them.
const FORWARDING: u8 = 2;

static MODE: AtomicU8 = AtomicU8::new(NEW);

/// Whether calls are recorded. The first call brings the recorder up.
#[inline(always)]
fn records() -> bool {
    match MODE.load(Ordering::Relaxed) {
        NEW => begin(),
        mode => mode == RECORDING,
    }
}

#[cold]
#[inline(never)]
fn begin() -> bool {
    let mode = if symbols::first(c"memscope_version").is_some() { FORWARDING } else { RECORDING };
    if MODE.compare_exchange(NEW, mode, Ordering::AcqRel, Ordering::Acquire).is_ok() && mode == RECORDING {
        start::provide_thread_keys(
            libc::pthread_key_create as *const () as usize,
            libc::pthread_setspecific as *const () as usize,
        );
        // Other threads' calls are recorded meanwhile, those of this thread are the recorder's own.
        start::start();
    }
    mode == RECORDING
}

const fn layout(size: usize, align: usize) -> Layout {
    // SAFETY: both come from a layout.
    unsafe { Layout::from_size_align_unchecked(size, align) }
}

/// A function that appends the caller's `rsp` (the address of the return address) and `rbp` to its arguments and jumps
/// to another one. It changes no register that its CFI speaks of.
macro_rules! stub {
    ($(#[$doc:meta])* $name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)? => $to:path, $move_sp:literal, $move_bp:literal) => {
        $(#[$doc])*
        #[unsafe(naked)]
        pub unsafe extern "C" fn $name($($argument: $type),*) $(-> $result)? {
            naked_asm!(
                ".cfi_startproc",
                "endbr64",
                $move_sp,
                $move_bp,
                "jmp {to}",
                ".cfi_endproc",
                to = sym $to,
            )
        }
    };
}

stub!(alloc(_size: usize, _align: usize) -> *mut u8 => recorded_alloc, "mov rdx, rsp", "mov rcx, rbp");
stub!(alloc_zeroed(_size: usize, _align: usize) -> *mut u8 => recorded_alloc_zeroed, "mov rdx, rsp", "mov rcx, rbp");
stub!(dealloc(_block: *mut u8, _size: usize, _align: usize) => recorded_dealloc, "mov rcx, rsp", "mov r8, rbp");
stub!(
    realloc(_block: *mut u8, _size: usize, _align: usize, _new_size: usize) -> *mut u8 => recorded_realloc,
    "mov r8, rsp",
    "mov r9, rbp"
);
stub!(define_name(_texts: *const [Text; 3]) -> u64 => recorded_define, "mov rsi, rsp", "mov rdx, rbp");
stub!(
    name_block(_address: *const c_void, _reach: usize, _id: u64) -> c_int => recorded_name,
    "mov rcx, rsp",
    "mov r8, rbp"
);

/// Records the start of a block, or the failure of the call.
#[inline(always)]
fn started(op: &Op, block: *mut u8, size: usize) {
    if block.is_null() { op.failed() } else { op.allocated(block as usize, size) }
}

unsafe extern "C" fn recorded_alloc(size: usize, align: usize, sp: usize, bp: usize) -> *mut u8 {
    let layout = layout(size, align);
    // SAFETY: the caller's promises; `sp` and `bp` as the stub found them.
    unsafe {
        if tls::get() == tls::OURS {
            return RegionHeap.alloc(layout);
        }
        if !records() {
            return System.alloc(layout);
        }
        let Some(op) = Op::begin(sp, bp) else { return System.alloc(layout) };
        let block = System.alloc(layout);
        started(&op, block, size);
        block
    }
}

unsafe extern "C" fn recorded_alloc_zeroed(size: usize, align: usize, sp: usize, bp: usize) -> *mut u8 {
    let layout = layout(size, align);
    // SAFETY: as above.
    unsafe {
        if tls::get() == tls::OURS {
            return RegionHeap.alloc_zeroed(layout);
        }
        if !records() {
            return System.alloc_zeroed(layout);
        }
        let Some(op) = Op::begin(sp, bp) else { return System.alloc_zeroed(layout) };
        let block = System.alloc_zeroed(layout);
        started(&op, block, size);
        block
    }
}

unsafe extern "C" fn recorded_dealloc(block: *mut u8, size: usize, align: usize, sp: usize, bp: usize) {
    let layout = layout(size, align);
    // SAFETY: as above.
    unsafe {
        if RegionHeap::contains(block) {
            return RegionHeap.dealloc(block, layout);
        }
        if tls::get() != tls::OURS
            && records()
            && let Some(op) = Op::begin(sp, bp)
        {
            op.freeing(block as usize);
            return System.dealloc(block, layout);
        }
        System.dealloc(block, layout);
    }
}

unsafe extern "C" fn recorded_realloc(
    block: *mut u8,
    size: usize,
    align: usize,
    new_size: usize,
    sp: usize,
    bp: usize,
) -> *mut u8 {
    let layout = layout(size, align);
    // SAFETY: as above.
    unsafe {
        if RegionHeap::contains(block) {
            return RegionHeap.realloc(block, layout, new_size);
        }
        if tls::get() == tls::OURS || !records() {
            return System.realloc(block, layout, new_size);
        }
        let Some(op) = Op::begin(sp, bp) else { return System.realloc(block, layout, new_size) };
        // `realloc` of an over-aligned block is an allocation, a copy and a free inside of `System`: one call all the same.
        let _stamp = op.reallocating(block as usize);
        let new = System.realloc(block, layout, new_size);
        if new.is_null() {
            op.realloc_failed(block as usize);
        } else {
            op.reallocated(new as usize, new_size);
        }
        new
    }
}

/// A text, as `interposer` passes it.
#[repr(C)]
pub struct Text {
    bytes: *const u8,
    length: usize,
}

unsafe extern "C" fn recorded_define(texts: *const [Text; 3], sp: usize, bp: usize) -> u64 {
    // SAFETY: `interposer` passes three readable texts; `sp` and `bp` as the stub found them.
    unsafe {
        let [name, type_name, scope] =
            [0, 1, 2].map(|at| std::slice::from_raw_parts((*texts)[at].bytes, (*texts)[at].length));
        naming::define(name, type_name, scope, sp, bp)
    }
}

unsafe extern "C" fn recorded_name(
    address: *const c_void,
    reach: usize,
    id: u64,
    sp: usize,
    bp: usize,
) -> c_int {
    // SAFETY: `sp` and `bp` as the stub found them.
    let outcome = unsafe { naming::name(address as usize, reach, id, sp, bp) };
    c_int::from(outcome == naming::Outcome::Unknown)
}

/// Addresses of the functions that take names, where this allocator records.
pub fn names() -> Option<(usize, usize)> {
    let recording = MODE.load(Ordering::Relaxed) == RECORDING;
    recording.then_some((define_name as *const () as usize, name_block as *const () as usize))
}

/// What is to be said at the start: nothing.
pub const fn note() -> Option<&'static str> {
    None
}
