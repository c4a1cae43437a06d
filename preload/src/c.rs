//! What the hooks of C's functions do.
//!
//! Each takes the function's arguments, then `sp` and `bp` of the caller. The order is always the same: a block's
//! end is recorded before the real call, its start after it, so that no other thread can own the address in
//! between. `errno` is whatever the real function left.

use crate::arena;
use crate::list::Hook;
use crate::real;
use core::ffi::{c_int, c_void};
use core::ptr::null_mut;
use memscope_recorder::program::{Op, Quick, stack};

type Block = *mut c_void;

/// The end of the addresses that a program can have.
const END: usize = 1 << 47;

/// The size of a block: what was asked for; 0 for more than there are addresses. Some allocators round that up to something small
/// instead of refusing it, and nobody but they know to what.
#[inline(always)]
pub const fn possible(size: usize) -> usize {
    if size < END { size } else { 0 }
}

/// Records the start of a block, or the failure of the call.
#[inline(always)]
fn started(op: &Op, block: Block, size: usize) {
    if block.is_null() { op.failed() } else { op.allocated(block as usize, possible(size)) }
}

/// Hook of `malloc`.
pub unsafe extern "C-unwind" fn malloc(size: usize, sp: usize, bp: usize) -> Block {
    // SAFETY: the program's own arguments; `sp` and `bp` as the stub found them.
    unsafe {
        if let Some(next) = real::next::<unsafe extern "C-unwind" fn(usize) -> Block>(Hook::Malloc)
            && let Some(call) = Quick::begin_allocating(size, sp, bp)
        {
            return call.allocated(next(size), size);
        }
        malloc_otherwise(size, sp, bp)
    }
}

/// `malloc` where it is not known yet, or not an ordinary call.
#[cold]
#[inline(never)]
unsafe extern "C-unwind" fn malloc_otherwise(size: usize, sp: usize, bp: usize) -> Block {
    // SAFETY: as in `malloc`.
    unsafe {
        let Some(next) = real::next::<unsafe extern "C-unwind" fn(usize) -> Block>(Hook::Malloc) else {
            return early(size, 16, |size| malloc(size, sp, bp));
        };
        let Some(op) = Op::begin(sp, bp) else {
            return if real::looking() && real::needs_arena() {
                real::arena_block(size, 16)
            } else {
                next(size)
            };
        };
        let block = next(size);
        started(&op, block, size);
        block
    }
}

/// A call before the real function is known: looks it up and tries again, or serves a lookup of ours.
#[cold]
#[inline(never)]
unsafe fn early(size: usize, align: usize, again: impl FnOnce(usize) -> Block) -> Block {
    if real::needs_arena() {
        return real::arena_block(size, align);
    }
    if real::address(Hook::Malloc) == 0 {
        return null_mut();
    }
    again(size)
}

/// Hook of `calloc`.
pub unsafe extern "C-unwind" fn calloc(count: usize, size: usize, sp: usize, bp: usize) -> Block {
    let total = count.saturating_mul(size);
    // SAFETY: as in `malloc`.
    unsafe {
        let Some(next) = real::next::<unsafe extern "C-unwind" fn(usize, usize) -> Block>(Hook::Calloc)
        else {
            return early(total, 16, |_| calloc(count, size, sp, bp));
        };
        let Some(op) = Op::begin(sp, bp) else {
            return if real::looking() && real::needs_arena() {
                real::arena_block(total, 16)
            } else {
                next(count, size)
            };
        };
        let block = next(count, size);
        started(&op, block, total);
        block
    }
}

/// Hook of `free`.
pub unsafe extern "C-unwind" fn free(block: Block, sp: usize, bp: usize) {
    // SAFETY: as in `malloc`.
    unsafe {
        if let Some(next) = real::next::<unsafe extern "C-unwind" fn(Block)>(Hook::Free)
            && !block.is_null()
            && arena::is_unused()
            && let Some(call) = Quick::begin(sp, bp)
            && call.freeing(block)
        {
            next(block);
            return;
        }
        free_otherwise(block, sp, bp);
    }
}

/// `free` where it is not known yet, or not an ordinary call.
#[cold]
#[inline(never)]
unsafe extern "C-unwind" fn free_otherwise(block: Block, sp: usize, bp: usize) {
    // SAFETY: as in `malloc`.
    unsafe {
        if let Some(next) = real::next::<unsafe extern "C-unwind" fn(Block)>(Hook::Free) {
            release(block, sp, bp, |block| next(block));
        } else {
            unknown_free(block, || free(block, sp, bp));
        }
    }
}

/// A free before the real function is known.
#[cold]
#[inline(never)]
fn unknown_free(block: Block, again: impl FnOnce()) {
    if !block.is_null() && !arena::contains(block) {
        real::resolve();
        if real::address(Hook::Free) != 0 {
            again();
        }
    }
}

/// Records the end of a block, then frees it.
#[inline(always)]
pub unsafe fn release(block: Block, sp: usize, bp: usize, next: impl FnOnce(Block)) {
    if block.is_null() {
        return next(block);
    }
    if arena::contains(block) {
        return;
    }
    // SAFETY: `sp` and `bp` as the stub found them.
    let Some(op) = (unsafe { Op::begin(sp, bp) }) else { return next(block) };
    op.freeing(block as usize);
    if stack::is_loader(op.return_address()) {
        op.loader_freed();
    }
    next(block);
}

/// Records a reallocation: the old block's end before the call, the new one's start after it.
#[inline(always)]
unsafe fn resize(old: Block, size: usize, sp: usize, bp: usize, next: impl FnOnce(Block) -> Block) -> Block {
    // SAFETY: `sp` and `bp` as the stub found them.
    let Some(op) = (unsafe { Op::begin(sp, bp) }) else { return next(old) };
    if old.is_null() {
        let block = next(old);
        started(&op, block, size);
        return block;
    }
    let stamp = op.reallocating(old as usize);
    let block = next(old);
    if !block.is_null() {
        op.reallocated(block as usize, possible(size));
    } else if size == 0 {
        op.realloc_freed(old as usize, stamp);
    } else {
        op.realloc_failed(old as usize);
    }
    block
}

/// Hook of `realloc`.
pub unsafe extern "C-unwind" fn realloc(old: Block, size: usize, sp: usize, bp: usize) -> Block {
    // SAFETY: as in `malloc`; a block of the arena is copied into one of the program's heap.
    unsafe {
        if arena::contains(old) {
            return arena::reallocate(old, size, malloc(size, sp, bp));
        }
        let Some(next) = real::next::<unsafe extern "C-unwind" fn(Block, usize) -> Block>(Hook::Realloc)
        else {
            return early(size, 16, |_| realloc(old, size, sp, bp));
        };
        if old.is_null() && real::looking() && real::needs_arena() {
            return real::arena_block(size, 16);
        }
        resize(old, size, sp, bp, |old| next(old, size))
    }
}

/// Hook of `reallocarray`.
pub unsafe extern "C-unwind" fn reallocarray(
    old: Block,
    count: usize,
    size: usize,
    sp: usize,
    bp: usize,
) -> Block {
    // SAFETY: as in `realloc`.
    unsafe {
        match real::next::<unsafe extern "C-unwind" fn(Block, usize, usize) -> Block>(Hook::Reallocarray) {
            Some(next) if !arena::contains(old) => {
                let total = count.saturating_mul(size);
                resize(old, total, sp, bp, |old| next(old, count, size))
            }
            _ => match count.checked_mul(size) {
                Some(total) => realloc(old, total, sp, bp),
                None => out_of_memory(),
            },
        }
    }
}

#[cold]
fn out_of_memory() -> Block {
    // SAFETY: the calling thread's own `errno`.
    unsafe { *libc::__errno_location() = libc::ENOMEM };
    null_mut()
}

/// Hook of `cfree`, the old name of `free`.
pub unsafe extern "C-unwind" fn cfree(block: Block, sp: usize, bp: usize) {
    // SAFETY: as in `malloc`.
    unsafe {
        match real::next::<unsafe extern "C-unwind" fn(Block)>(Hook::Cfree) {
            Some(next) => release(block, sp, bp, |block| next(block)),
            None => free(block, sp, bp),
        }
    }
}

/// Hook of `free_sized` (C23); where libc has none it is `free`.
pub unsafe extern "C-unwind" fn free_sized(block: Block, size: usize, sp: usize, bp: usize) {
    // SAFETY: as in `malloc`.
    unsafe {
        match real::next::<unsafe extern "C-unwind" fn(Block, usize)>(Hook::FreeSized) {
            Some(next) => release(block, sp, bp, |block| next(block, size)),
            None => free(block, sp, bp),
        }
    }
}

/// Hook of `free_aligned_sized` (C23); where libc has none it is `free`.
pub unsafe extern "C-unwind" fn free_aligned_sized(
    block: Block,
    align: usize,
    size: usize,
    sp: usize,
    bp: usize,
) {
    // SAFETY: as in `malloc`.
    unsafe {
        match real::next::<unsafe extern "C-unwind" fn(Block, usize, usize)>(Hook::FreeAlignedSized) {
            Some(next) => release(block, sp, bp, |block| next(block, align, size)),
            None => free(block, sp, bp),
        }
    }
}

/// Allocates by a real function that returns the block.
#[inline(always)]
unsafe fn aligned(
    size: usize,
    align: usize,
    sp: usize,
    bp: usize,
    next: Option<impl FnOnce() -> Block>,
) -> Block {
    if real::looking() && real::needs_arena() {
        return real::arena_block(size, align);
    }
    let Some(next) = next else { return out_of_memory() };
    // SAFETY: `sp` and `bp` as the stub found them.
    let Some(op) = (unsafe { Op::begin(sp, bp) }) else { return next() };
    let block = next();
    started(&op, block, size);
    block
}

/// Hook of `memalign`.
pub unsafe extern "C-unwind" fn memalign(align: usize, size: usize, sp: usize, bp: usize) -> Block {
    // SAFETY: as in `malloc`.
    unsafe {
        real::ready();
        let next = real::next::<unsafe extern "C-unwind" fn(usize, usize) -> Block>(Hook::Memalign);
        aligned(size, align, sp, bp, next.map(|next| move || next(align, size)))
    }
}

/// Hook of `aligned_alloc`.
pub unsafe extern "C-unwind" fn aligned_alloc(align: usize, size: usize, sp: usize, bp: usize) -> Block {
    // SAFETY: as in `malloc`.
    unsafe {
        real::ready();
        let next = real::next::<unsafe extern "C-unwind" fn(usize, usize) -> Block>(Hook::AlignedAlloc);
        aligned(size, align, sp, bp, next.map(|next| move || next(align, size)))
    }
}

/// Hook of `valloc`.
pub unsafe extern "C-unwind" fn valloc(size: usize, sp: usize, bp: usize) -> Block {
    // SAFETY: as in `malloc`.
    unsafe {
        real::ready();
        let next = real::next::<unsafe extern "C-unwind" fn(usize) -> Block>(Hook::Valloc);
        aligned(size, 4096, sp, bp, next.map(|next| move || next(size)))
    }
}

/// Hook of `pvalloc`.
pub unsafe extern "C-unwind" fn pvalloc(size: usize, sp: usize, bp: usize) -> Block {
    // SAFETY: as in `malloc`.
    unsafe {
        real::ready();
        let next = real::next::<unsafe extern "C-unwind" fn(usize) -> Block>(Hook::Pvalloc);
        aligned(size, 4096, sp, bp, next.map(|next| move || next(size)))
    }
}

/// Hook of `posix_memalign`, which returns its error and leaves `errno` and, in that case, the pointer alone.
pub unsafe extern "C-unwind" fn posix_memalign(
    out: *mut Block,
    align: usize,
    size: usize,
    sp: usize,
    bp: usize,
) -> c_int {
    // SAFETY: as in `malloc`; `out` is the program's promise.
    unsafe {
        real::ready();
        let Some(next) =
            real::next::<unsafe extern "C-unwind" fn(*mut Block, usize, usize) -> c_int>(Hook::PosixMemalign)
        else {
            return libc::ENOMEM;
        };
        let Some(op) = Op::begin(sp, bp) else { return next(out, align, size) };
        let result = next(out, align, size);
        if result == 0 {
            op.allocated(*out as usize, possible(size))
        } else {
            op.failed()
        }
        result
    }
}

/// Hook of `malloc_usable_size`: records nothing, but must know the arena's blocks.
pub unsafe extern "C-unwind" fn malloc_usable_size(block: Block, _sp: usize, _bp: usize) -> usize {
    // SAFETY: as in `malloc`.
    unsafe {
        if arena::contains(block) {
            return arena::size(block);
        }
        real::ready();
        match real::next::<unsafe extern "C-unwind" fn(Block) -> usize>(Hook::MallocUsableSize) {
            Some(next) => next(block),
            None => 0,
        }
    }
}
