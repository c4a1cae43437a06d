//! Our own heap: what the recorder allocates never comes from the program's heap.
//!
//! Only our own thread, the constructor and slow paths allocate, so this is simple rather than fast: classes
//! of powers of two cut from 256 KiB chunks, larger blocks mapped singly, one spin lock. The lock and the
//! lists lie in memory that reads as zero in a forked child, which thereby starts with an empty heap and an
//! open lock; the parent's blocks stay valid there, they are just never handed out again.

use crate::sys::{memory, process};
use core::alloc::{GlobalAlloc, Layout};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};

const SMALLEST_SHIFT: u32 = 5;
const CLASSES: usize = 12;
const LARGEST: usize = 1 << (SMALLEST_SHIFT as usize + CLASSES - 1);
const CHUNK: usize = 256 << 10;

/// The heap's state, in a page of its own that a forked child finds wiped.
#[repr(C)]
struct State {
    locked: AtomicU32,
    /// 1 where the lock's holder has not come back.
    stuck: AtomicU32,
    free: [*mut Link; CLASSES],
    chunk: *mut u8,
    chunk_left: usize,
}

struct Link {
    next: *mut Link,
}

static STATE: AtomicPtr<State> = AtomicPtr::new(null_mut());

/// Address space set aside for the time when the kernel gives no more: enough for one batch of the writer, after which
/// it stops. Nothing of it is touched before.
const RESERVE: usize = 16 << 20;
static RESERVE_START: AtomicUsize = AtomicUsize::new(0);
static RESERVE_USED: AtomicUsize = AtomicUsize::new(0);

/// Sets the reserve aside; false where the kernel does not give that much. (A program that is so short of memory is not
/// recorded: it needs what there is.)
#[must_use]
pub fn set_reserve_aside() -> bool {
    if RESERVE_START.load(Ordering::Acquire) == 0
        && let Ok(start) = memory::map_private(RESERVE)
    {
        RESERVE_START.store(start as usize, Ordering::Release);
    }
    RESERVE_START.load(Ordering::Acquire) != 0
}

/// Whether the kernel gives this much now.
#[must_use]
pub fn has_room(bytes: usize) -> bool {
    let Ok(start) = memory::map_private(bytes) else { return false };
    // SAFETY: new, and nobody else has seen it.
    unsafe { memory::unmap(start, bytes) }.is_ok()
}

/// True once the kernel has refused us memory: recording is to end.
#[must_use]
pub fn is_low() -> bool {
    RESERVE_USED.load(Ordering::Acquire) != 0
}

/// A block of the reserve, which never comes back. Null where it is used up or was never set aside.
#[cold]
fn from_reserve(size: usize, align: usize) -> *mut u8 {
    let (start, align) = (RESERVE_START.load(Ordering::Acquire), align.max(memory::PAGE));
    let size = size.next_multiple_of(memory::PAGE) + align - memory::PAGE;
    let at = RESERVE_USED.fetch_add(size, Ordering::AcqRel);
    if start == 0 || at + size > RESERVE {
        null_mut()
    } else {
        (start + at).next_multiple_of(align) as *mut u8
    }
}

/// The allocator that `libmemscope.so` declares as its global one.
#[derive(Clone, Copy, Debug, Default)]
pub struct OwnHeap;

fn state() -> Option<*mut State> {
    let known = STATE.load(Ordering::Acquire);
    if !known.is_null() {
        return Some(known);
    }
    let fresh = map_wiped(size_of::<State>())?.cast::<State>();
    match STATE.compare_exchange(null_mut(), fresh, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => Some(fresh),
        Err(other) => {
            // SAFETY: nobody else has seen the fresh mapping.
            let _ = unsafe { memory::unmap(fresh.cast(), size_of::<State>()) };
            Some(other)
        }
    }
}

/// Maps private memory that reads as zero in a forked child.
#[must_use]
pub fn map_wiped(len: usize) -> Option<*mut u8> {
    let base = memory::map_private(len).ok()?;
    // SAFETY: the mapping is ours and new.
    let _ = unsafe { memory::advise(base, len, libc::MADV_WIPEONFORK) };
    Some(base)
}

struct Locked(*mut State);

impl Locked {
    fn take() -> Option<Self> {
        let state = state()?;
        // SAFETY: the state is mapped for good, and only its atomic is touched without the lock.
        let lock = unsafe { &(*state).locked };
        let mut turns = process::Turns::default();
        while lock.compare_exchange_weak(0, 1, Ordering::Acquire, Ordering::Relaxed).is_err() {
            // SAFETY: as above.
            let stuck = unsafe { &(*state).stuck };
            if stuck.load(Ordering::Relaxed) != 0 || !turns.pass() {
                // Its holder has gone: nobody is to wait for it again.
                stuck.store(1, Ordering::Relaxed);
                return None;
            }
        }
        Some(Self(state))
    }

    fn pop(&mut self, class: usize) -> *mut u8 {
        // SAFETY: we hold the lock, so nobody else touches the lists; links lie in free blocks of ours.
        unsafe {
            let head = (*self.0).free[class];
            if !head.is_null() {
                (*self.0).free[class] = (*head).next;
                return head.cast();
            }
            let size = 1 << (SMALLEST_SHIFT as usize + class);
            if (*self.0).chunk_left < size {
                let chunk = memory::map_private(CHUNK).unwrap_or_else(|_| from_reserve(CHUNK, 1));
                if chunk.is_null() {
                    return null_mut();
                }
                (*self.0).chunk = chunk;
                (*self.0).chunk_left = CHUNK;
            }
            // From the chunk's end downwards: every block is aligned to its size.
            (*self.0).chunk_left = ((*self.0).chunk_left - size) & !(size - 1);
            (*self.0).chunk.add((*self.0).chunk_left)
        }
    }

    fn push(&mut self, class: usize, block: *mut u8) {
        // SAFETY: we hold the lock; the block is free, at least 32 bytes and aligned to its size.
        unsafe {
            let link = block.cast::<Link>();
            (*link).next = (*self.0).free[class];
            (*self.0).free[class] = link;
        }
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        // SAFETY: the state is mapped for good.
        unsafe { (*self.0).locked.store(0, Ordering::Release) };
    }
}

fn class_of(layout: Layout) -> Option<usize> {
    let size = layout.size().max(layout.align()).max(1 << SMALLEST_SHIFT).next_power_of_two();
    (size <= LARGEST).then(|| (size.trailing_zeros() - SMALLEST_SHIFT) as usize)
}

// SAFETY: blocks of one class never overlap while handed out, are as large and as aligned as asked for
// (a class is a power of two at least as large as size and alignment; a mapping is page aligned).
unsafe impl GlobalAlloc for OwnHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        #[cfg(feature = "audit")]
        audit();
        match class_of(layout) {
            Some(class) => match Locked::take() {
                Some(mut heap) => heap.pop(class),
                // Without the lists: a block that is never given out again.
                None => {
                    let size = (1_usize << (SMALLEST_SHIFT as usize + class)).max(memory::PAGE);
                    memory::map_private_aligned(size, size).unwrap_or(null_mut())
                }
            },
            None => {
                let mapped = if layout.align() <= memory::PAGE {
                    memory::map_private(layout.size())
                } else {
                    memory::map_private_aligned(layout.size(), layout.align())
                };
                mapped.unwrap_or_else(|_| from_reserve(layout.size(), layout.align()))
            }
        }
    }

    /// Large blocks are fresh mappings: zero already, and their pages cost nothing until they are touched.
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: passed on.
        let block = unsafe { self.alloc(layout) };
        if !block.is_null() && class_of(layout).is_some() {
            // SAFETY: the block has that many bytes.
            unsafe { block.write_bytes(0, layout.size()) };
        }
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        match class_of(layout) {
            Some(class) => {
                if let Some(mut heap) = Locked::take() {
                    heap.push(class, block);
                }
            }
            None => {
                // SAFETY: a block of this size is a mapping of its own.
                let _ = unsafe { memory::unmap(block, layout.size()) };
            }
        }
    }
}

/// In audit builds: proves that no hook allocates while it records.
#[cfg(feature = "audit")]
fn audit() {
    if crate::program::inside_hook() {
        crate::sys::file::complain(b"memscope: audit: a hook has allocated\n");
        std::process::abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_aligned_and_apart() {
        let heap = OwnHeap;
        let mut blocks = Vec::new();
        for i in 0..2000_usize {
            let layout = Layout::from_size_align(1 + i * 37 % 70_000, 1 << (i % 9)).unwrap();
            // SAFETY: the layout has a size.
            let block = unsafe { heap.alloc(layout) };
            assert!(!block.is_null());
            assert_eq!(block as usize % layout.align(), 0);
            // SAFETY: the block has that many bytes.
            unsafe { block.write_bytes(i as u8, layout.size()) };
            blocks.push((block, layout, i as u8));
        }
        for (block, layout, mark) in blocks {
            // SAFETY: allocated above with this layout.
            unsafe {
                assert_eq!((*block, *block.add(layout.size() - 1)), (mark, mark));
                heap.dealloc(block, layout);
            }
        }
    }
}
