//! Room on the stack for arrays whose size is not known before.
//!
//! A heap is out of the question in the child of a `vfork`, which shares its parent's and may be killed with the
//! lock held; and what is mapped there stays with the parent when the child has become another program.

use crate::sys::memory;
use core::mem::MaybeUninit;

const SMALL: usize = 192;
const LARGE: usize = 4096;

/// Words that are not yet written.
pub type Words<'a> = &'a mut [MaybeUninit<usize>];

/// Calls with this many words; with `None` where there is no memory.
pub fn with_words<R>(count: usize, call: impl FnOnce(Option<Words<'_>>) -> R) -> R {
    match count {
        count if count <= SMALL => on_stack::<SMALL, R>(call),
        count if count <= LARGE => on_stack::<LARGE, R>(call),
        count => mapped(count, call),
    }
}

#[inline(never)]
fn on_stack<const N: usize, R>(call: impl FnOnce(Option<Words<'_>>) -> R) -> R {
    let mut words = [MaybeUninit::uninit(); N];
    call(Some(&mut words))
}

#[inline(never)]
fn mapped<R>(count: usize, call: impl FnOnce(Option<Words<'_>>) -> R) -> R {
    let bytes = count * size_of::<usize>();
    let Ok(memory) = memory::map_private(bytes) else { return call(None) };
    // SAFETY: newly mapped, page aligned, and nobody else's.
    let words = unsafe { core::slice::from_raw_parts_mut(memory.cast::<MaybeUninit<usize>>(), count) };
    let result = call(Some(words));
    // SAFETY: nothing borrows from it any more.
    let _ = unsafe { memory::unmap(memory, bytes) };
    result
}
