//! What the hooks of C++'s `operator new` and `operator delete` do.
//!
//! [`Cxx`] says which of three things. Where the C++ library's operators are in use, a `new` is recorded as what it is,
//! so that its caller is the stack's first frame, and a `delete` by the `free` in it.
//!
//! The real `operator new` may throw `bad_alloc`, or call a handler that frees and throws anything. It is called
//! without a guard unless it is an allocator's own ([`OperatorNew`]), so what a handler does is recorded.

use crate::c::{possible, release};
use crate::list::Hook;
use crate::real::{self, Cxx};
use core::ffi::c_void;
use core::ptr::null_mut;
use memscope_recorder::program::{Op, OperatorNew, Quick};

type Block = *mut c_void;
/// A size, an alignment, or the address of `std::nothrow`: one machine word.
type Word = usize;

type New1 = unsafe extern "C-unwind" fn(Word) -> Block;
type New2 = unsafe extern "C-unwind" fn(Word, Word) -> Block;
type New3 = unsafe extern "C-unwind" fn(Word, Word, Word) -> Block;
type Delete1 = unsafe extern "C-unwind" fn(Block);
type Delete2 = unsafe extern "C-unwind" fn(Block, Word);
type Delete3 = unsafe extern "C-unwind" fn(Block, Word, Word);
type Malloc = unsafe extern "C-unwind" fn(usize) -> Block;
type AlignedAlloc = unsafe extern "C-unwind" fn(usize, usize) -> Block;
type Free = unsafe extern "C-unwind" fn(Block);

/// Finds a real function, looking again for a library that came by `dlopen`.
macro_rules! operator {
    ($hook:ident as $type:ty) => {{
        real::ready();
        if real::address(Hook::$hook) == 0 {
            real::resolve_late(Hook::$hook);
        }
        real::next::<$type>(Hook::$hook)
    }};
}

/// Calls the real operator; records the block only where the operator is an allocator's own.
#[inline(always)]
unsafe fn record(hook: Hook, size: usize, sp: usize, bp: usize, next: impl FnOnce() -> Block) -> Block {
    if real::cxx() != Cxx::Own {
        return next();
    }
    // SAFETY: `sp` and `bp` as the stub found them.
    let Some(call) = (unsafe { OperatorNew::begin(real::address(hook), sp, bp) }) else { return next() };
    let block = next();
    if !block.is_null() {
        call.allocated(block as usize, possible(size));
    }
    block
}

/// What the C++ library's `operator new` does at first: `malloc`, of at least one byte. `None`: leave it to the
/// operator (which tries once more, then calls the program's handler, then throws).
#[inline(always)]
unsafe fn plain(size: usize, sp: usize, bp: usize) -> Option<Block> {
    if real::cxx() != Cxx::Plain {
        return None;
    }
    // SAFETY: the program's own arguments; `sp` and `bp` as the stub found them.
    unsafe {
        let malloc = real::next::<Malloc>(Hook::Malloc)?;
        let Some(call) = Quick::begin_allocating(size, sp, bp) else {
            return plain_otherwise(malloc, size, sp, bp);
        };
        let block = malloc(size.max(1));
        if block.is_null() { None } else { Some(call.allocated(block, size)) }
    }
}

/// [`plain`] where it is not an ordinary call.
#[cold]
#[inline(never)]
unsafe fn plain_otherwise(malloc: Malloc, size: usize, sp: usize, bp: usize) -> Option<Block> {
    // SAFETY: as in `plain`.
    unsafe {
        let op = Op::begin(sp, bp)?;
        let block = malloc(size.max(1));
        if block.is_null() {
            return None;
        }
        op.allocated(block as usize, size);
        Some(block)
    }
}

/// The same for an alignment: `aligned_alloc`, of a multiple of it.
#[inline(always)]
unsafe fn plain_aligned(size: usize, align: usize, sp: usize, bp: usize) -> Option<Block> {
    if real::cxx() != Cxx::Plain || !align.is_power_of_two() {
        return None;
    }
    // SAFETY: the program's own arguments; `sp` and `bp` as the stub found them.
    unsafe {
        let aligned_alloc = real::next::<AlignedAlloc>(Hook::AlignedAlloc)?;
        let align = align.max(size_of::<usize>());
        let total = size.max(1).checked_next_multiple_of(align)?;
        let op = Op::begin(sp, bp)?;
        let block = aligned_alloc(align, total);
        if block.is_null() {
            return None;
        }
        op.allocated(block as usize, size);
        Some(block)
    }
}

/// Where no operator is loaded at all (a library with a hidden C++ runtime): `malloc`'s answer. It can't
/// throw, so a program that asks for more than there is ends here.
#[cold]
unsafe fn without_runtime(size: usize, align: usize, nothrow: bool, sp: usize, bp: usize) -> Block {
    // SAFETY: the program's own arguments.
    let block = unsafe {
        if align <= 16 {
            crate::c::malloc(size.max(1), sp, bp)
        } else {
            let size = size.max(1).next_multiple_of(align);
            match real::next::<AlignedAlloc>(Hook::AlignedAlloc) {
                Some(_) => crate::c::aligned_alloc(align, size, sp, bp),
                None => null_mut(),
            }
        }
    };
    if block.is_null() && !nothrow {
        memscope_recorder::start::say("operator new failed, and no C++ runtime is there to throw bad_alloc");
        std::process::abort();
    }
    block
}

macro_rules! plain_new {
    ($name:ident, $hook:ident, $symbol:literal) => {
        #[doc = concat!("Hook of `", $symbol, "`.")]
        pub unsafe extern "C-unwind" fn $name(size: usize, sp: usize, bp: usize) -> Block {
            // SAFETY: the program's own arguments.
            unsafe {
                if let Some(block) = plain(size, sp, bp) {
                    return block;
                }
                match operator!($hook as New1) {
                    Some(next) => record(Hook::$hook, size, sp, bp, || next(size)),
                    None => without_runtime(size, 0, false, sp, bp),
                }
            }
        }
    };
}

macro_rules! nothrow_new {
    ($name:ident, $hook:ident, $symbol:literal) => {
        #[doc = concat!("Hook of `", $symbol, "`.")]
        pub unsafe extern "C-unwind" fn $name(size: usize, nothrow: Word, sp: usize, bp: usize) -> Block {
            // SAFETY: the program's own arguments.
            unsafe {
                if let Some(block) = plain(size, sp, bp) {
                    return block;
                }
                match operator!($hook as New2) {
                    Some(next) => record(Hook::$hook, size, sp, bp, || next(size, nothrow)),
                    None => without_runtime(size, 0, true, sp, bp),
                }
            }
        }
    };
}

macro_rules! aligned_new {
    ($name:ident, $hook:ident, $symbol:literal) => {
        #[doc = concat!("Hook of `", $symbol, "`.")]
        pub unsafe extern "C-unwind" fn $name(size: usize, align: Word, sp: usize, bp: usize) -> Block {
            // SAFETY: the program's own arguments.
            unsafe {
                if let Some(block) = plain_aligned(size, align, sp, bp) {
                    return block;
                }
                match operator!($hook as New2) {
                    Some(next) => record(Hook::$hook, size, sp, bp, || next(size, align)),
                    None => without_runtime(size, align, false, sp, bp),
                }
            }
        }
    };
}

macro_rules! aligned_nothrow_new {
    ($name:ident, $hook:ident, $symbol:literal) => {
        #[doc = concat!("Hook of `", $symbol, "`.")]
        pub unsafe extern "C-unwind" fn $name(
            size: usize,
            align: Word,
            nothrow: Word,
            sp: usize,
            bp: usize,
        ) -> Block {
            // SAFETY: the program's own arguments.
            unsafe {
                if let Some(block) = plain_aligned(size, align, sp, bp) {
                    return block;
                }
                match operator!($hook as New3) {
                    Some(next) => record(Hook::$hook, size, sp, bp, || next(size, align, nothrow)),
                    None => without_runtime(size, align, true, sp, bp),
                }
            }
        }
    };
}

/// A `delete`: recorded here only where the operator is an allocator's own.
macro_rules! delete {
    ($name:ident, $hook:ident, $type:ty, $symbol:literal $(, $extra:ident)*) => {
        #[doc = concat!("Hook of `", $symbol, "`.")]
        pub unsafe extern "C-unwind" fn $name(block: Block, $($extra: Word,)* sp: usize, bp: usize) {
            // SAFETY: the program's own arguments.
            unsafe {
                match operator!($hook as $type) {
                    Some(next) if real::cxx() != Cxx::Own => next(block $(, $extra)*),
                    Some(next) => release(block, sp, bp, |block| next(block $(, $extra)*)),
                    None => {
                        if let Some(free) = real::next::<Free>(Hook::Free) {
                            release(block, sp, bp, |block| free(block));
                        }
                    }
                }
            }
        }
    };
}

plain_new!(new, New, "operator new(size_t)");
plain_new!(new_array, NewArray, "operator new[](size_t)");
nothrow_new!(new_nothrow, NewNothrow, "operator new(size_t, nothrow_t const&)");
nothrow_new!(new_array_nothrow, NewArrayNothrow, "operator new[](size_t, nothrow_t const&)");
aligned_new!(new_aligned, NewAligned, "operator new(size_t, align_val_t)");
aligned_new!(new_array_aligned, NewArrayAligned, "operator new[](size_t, align_val_t)");
aligned_nothrow_new!(
    new_aligned_nothrow,
    NewAlignedNothrow,
    "operator new(size_t, align_val_t, nothrow_t const&)"
);
aligned_nothrow_new!(
    new_array_aligned_nothrow,
    NewArrayAlignedNothrow,
    "operator new[](size_t, align_val_t, nothrow_t const&)"
);

delete!(delete, Delete, Delete1, "operator delete(void*)");
delete!(delete_array, DeleteArray, Delete1, "operator delete[](void*)");
delete!(delete_nothrow, DeleteNothrow, Delete2, "operator delete(void*, nothrow_t const&)", nothrow);
delete!(
    delete_array_nothrow,
    DeleteArrayNothrow,
    Delete2,
    "operator delete[](void*, nothrow_t const&)",
    nothrow
);
delete!(delete_sized, DeleteSized, Delete2, "operator delete(void*, size_t)", size);
delete!(delete_array_sized, DeleteArraySized, Delete2, "operator delete[](void*, size_t)", size);
delete!(delete_aligned, DeleteAligned, Delete2, "operator delete(void*, align_val_t)", align);
delete!(delete_array_aligned, DeleteArrayAligned, Delete2, "operator delete[](void*, align_val_t)", align);
delete!(
    delete_aligned_nothrow,
    DeleteAlignedNothrow,
    Delete3,
    "operator delete(void*, align_val_t, nothrow_t const&)",
    align,
    nothrow
);
delete!(
    delete_array_aligned_nothrow,
    DeleteArrayAlignedNothrow,
    Delete3,
    "operator delete[](void*, align_val_t, nothrow_t const&)",
    align,
    nothrow
);
delete!(
    delete_sized_aligned,
    DeleteSizedAligned,
    Delete3,
    "operator delete(void*, size_t, align_val_t)",
    size,
    align
);
delete!(
    delete_array_sized_aligned,
    DeleteArraySizedAligned,
    Delete3,
    "operator delete[](void*, size_t, align_val_t)",
    size,
    align
);
