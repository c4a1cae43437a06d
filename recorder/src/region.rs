//! Our own heap where the recorder is linked into the program, whose global allocator then is everybody's.
//!
//! Rust frees a block without saying who had allocated it. So what is ours must be told by its address: it all comes from a few
//! large regions of address space, of which only what is used costs memory. Otherwise as [`crate::heap`]: few and cold
//! callers, classes of powers of two, one spin lock, and state that a forked child finds wiped.

use crate::heap::map_wiped;
use crate::sys::{memory, process};
use core::alloc::{GlobalAlloc, Layout};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};

const SMALLEST_SHIFT: u32 = 5;
const CLASSES: usize = 26;
/// Sizes of a region, the first that the system grants: address space may be limited.
const SIZES: [usize; 3] = [1 << 30, 256 << 20, 64 << 20];
/// One region lasts. A forked child, whose lists are wiped, makes one of its own, and so do its children.
const MOST: usize = 64;

/// The regions, from their starts to their ends; 0 where there is none yet. Never unmapped.
static STARTS: [AtomicUsize; MOST] = [const { AtomicUsize::new(0) }; MOST];
static ENDS: [AtomicUsize; MOST] = [const { AtomicUsize::new(0) }; MOST];
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// Lists and lock; valid when zero.
#[repr(C)]
struct State {
    locked: AtomicU32,
    /// 1 where the lock's holder has not come back.
    stuck: AtomicU32,
    free: [*mut Link; CLASSES],
    /// What is left of the newest region is from `start` to `end`.
    start: usize,
    end: usize,
}

struct Link {
    next: *mut Link,
}

static STATE: AtomicPtr<State> = AtomicPtr::new(null_mut());

/// The allocator. See the module.
#[derive(Clone, Copy, Debug, Default)]
pub struct RegionHeap;

impl RegionHeap {
    /// Whether a block is one of this heap's.
    #[inline(always)]
    #[must_use]
    pub fn contains(block: *const u8) -> bool {
        let count = COUNT.load(Ordering::Acquire).min(MOST);
        let is_in = |at: usize| {
            let (start, end) = (STARTS[at].load(Ordering::Acquire), ENDS[at].load(Ordering::Acquire));
            (start..end).contains(&(block as usize))
        };
        (0..count).any(is_in)
    }
}

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

/// A new region, known to [`RegionHeap::contains`] before any block of it is given out.
fn new_region() -> Option<(usize, usize)> {
    let at = COUNT.load(Ordering::Acquire);
    if at >= MOST {
        return None;
    }
    let (base, size) =
        SIZES.into_iter().find_map(|size| Some((memory::map_private(size).ok()? as usize, size)))?;
    STARTS[at].store(base, Ordering::Release);
    ENDS[at].store(base + size, Ordering::Release);
    COUNT.store(at + 1, Ordering::Release);
    Some((base, base + size))
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
        let size = 1_usize << (SMALLEST_SHIFT as usize + class);
        // SAFETY: we hold the lock, so nobody else touches the lists; links lie in free blocks of ours.
        unsafe {
            let head = (*self.0).free[class];
            if !head.is_null() {
                (*self.0).free[class] = (*head).next;
                return head.cast();
            }
            for _ in 0..2 {
                let block = ((*self.0).start + size - 1) & !(size - 1);
                if (*self.0).start != 0 && block + size <= (*self.0).end {
                    (*self.0).start = block + size;
                    return block as *mut u8;
                }
                let Some((start, end)) = new_region() else { break };
                ((*self.0).start, (*self.0).end) = (start, end);
            }
        }
        null_mut()
    }

    fn push(&mut self, class: usize, block: *mut u8) {
        // SAFETY: we hold the lock; the block is free and at least 32 bytes.
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
    let size = layout.size().max(layout.align()).max(1 << SMALLEST_SHIFT).checked_next_power_of_two()?;
    let class = (size.trailing_zeros() - SMALLEST_SHIFT) as usize;
    (class < CLASSES).then_some(class)
}

// SAFETY: blocks of one class never overlap while handed out, are as large and as aligned as asked for
// (a class is a power of two at least as large as size and alignment).
unsafe impl GlobalAlloc for RegionHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(class) = class_of(layout) else { return null_mut() };
        Locked::take().map_or(null_mut(), |mut heap| heap.pop(class))
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if let (Some(class), Some(mut heap)) = (class_of(layout), Locked::take()) {
            heap.push(class, block);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_aligned_apart_and_known() {
        let heap = RegionHeap;
        let mut blocks = Vec::new();
        for i in 0..2000_usize {
            let layout = Layout::from_size_align(1 + i * 137 % 200_000, 1 << (i % 13)).unwrap();
            // SAFETY: the layout has a size.
            let block = unsafe { heap.alloc(layout) };
            assert!(!block.is_null() && RegionHeap::contains(block));
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
        let own = Box::new(0_u8);
        assert!(!RegionHeap::contains(&raw const *own));
        // SAFETY: the layout has a size.
        assert!(unsafe { heap.alloc(Layout::from_size_align(usize::MAX >> 2, 1).unwrap()) }.is_null());
    }
}
