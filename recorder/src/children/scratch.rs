//! Room for what is too big for a stack: hooks may run on 16 KiB of it, or on what is left of an alternate one.
//!
//! A heap is out of the question in the child of a `vfork`, which shares its parent's and may be killed with the
//! lock held; and what is mapped there stays with the parent when the child has become another program. So a few
//! mappings are kept for good. Who takes one leaves its name there, and the child of a `vfork` that becomes another
//! program never gives it back. Its name is that of a thread and of a process: the thread, which was suspended
//! meanwhile, may take it over, and so may its later children. A child whose parent holds it may not: that is a
//! signal handler's which has interrupted a hook.

use crate::sys::{memory, process};
use core::arch::asm;
use core::mem::MaybeUninit;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

/// Words that lie on the stack.
const SMALL: usize = 64;
/// The same where nothing can be mapped: then a small stack has to do.
const LAST_RESORT: usize = 4096;
/// What one of the mappings has that are kept. More is mapped for as long as it is needed.
pub const KEPT: usize = 128 << 10;
/// Bits of a process id: the kernel's limit.
const PID_BITS: u32 = 22;
/// Bits of a thread's address that are zero.
const ALIGNMENT: u32 = 6;

/// Words that are not yet written.
pub type Words<'a> = &'a mut [MaybeUninit<usize>];

struct Slot {
    /// Name of who has it; zero where nobody has.
    holder: AtomicU64,
    memory: AtomicPtr<u8>,
}

impl Slot {
    const fn new() -> Self {
        Self { holder: AtomicU64::new(0), memory: AtomicPtr::new(null_mut()) }
    }

    /// Its memory, if it is free or may be taken over.
    fn take(&self, name: u64) -> Option<*mut u8> {
        let holder = self.holder.load(Ordering::Relaxed);
        if !may_take(holder, name, process::parent_pid) {
            return None;
        }
        self.holder.compare_exchange(holder, name, Ordering::Acquire, Ordering::Relaxed).ok()?;
        let kept = self.memory.load(Ordering::Relaxed);
        if !kept.is_null() {
            return Some(kept);
        }
        let new = memory::map_private(KEPT).ok();
        self.memory.store(new.unwrap_or(null_mut()), Ordering::Relaxed);
        if new.is_none() {
            self.holder.store(0, Ordering::Release);
        }
        new
    }
}

static SLOTS: [Slot; 2] = [const { Slot::new() }; 2];

/// Of the calling thread, which the child of a `vfork` shares, and of the process.
fn name() -> u64 {
    let thread: u64;
    // SAFETY: on x86-64 the first word of a thread's block holds its own address.
    unsafe {
        asm!("mov {}, qword ptr fs:[0]", out(reg) thread, options(nostack, preserves_flags, readonly));
    }
    thread >> ALIGNMENT << PID_BITS | u64::from(process::pid())
}

fn may_take(holder: u64, name: u64, parent: impl FnOnce() -> u32) -> bool {
    let pid = |name: u64| name & ((1 << PID_BITS) - 1);
    let same_thread = holder >> PID_BITS == name >> PID_BITS;
    holder == 0 || same_thread && pid(holder) != pid(name) && pid(holder) != u64::from(parent())
}

/// Memory with anything in it; given back when dropped.
#[derive(Debug)]
pub struct Scratch {
    memory: *mut u8,
    bytes: usize,
    kept: bool,
}

impl Scratch {
    /// Room for so many bytes; `None` where there is no memory.
    pub fn take(bytes: usize) -> Option<Self> {
        let name = name();
        let kept = || SLOTS.iter().find_map(|slot| slot.take(name));
        if let Some(memory) = (bytes <= KEPT).then(kept).flatten() {
            return Some(Self { memory, bytes: KEPT, kept: true });
        }
        Some(Self { memory: memory::map_private(bytes).ok()?, bytes, kept: false })
    }

    /// All of it, from a page's boundary on.
    pub const fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: mapped, and nobody else's.
        unsafe { core::slice::from_raw_parts_mut(self.memory, self.bytes) }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.kept {
            // SAFETY: mapped for this alone, and nothing borrows from it any more.
            let _ = unsafe { memory::unmap(self.memory, self.bytes) };
            return;
        }
        let is_this = |slot: &&Slot| slot.memory.load(Ordering::Relaxed) == self.memory;
        SLOTS.iter().find(is_this).into_iter().for_each(|slot| slot.holder.store(0, Ordering::Release));
    }
}

/// Calls with this many words; with `None` where there is no memory.
pub fn with_words<R>(count: usize, call: impl FnOnce(Option<Words<'_>>) -> R) -> R {
    if count <= SMALL {
        return on_stack::<SMALL, R>(call);
    }
    match Scratch::take(count * size_of::<usize>()) {
        Some(scratch) => apart(scratch, count, call),
        None if count <= LAST_RESORT => on_stack::<LAST_RESORT, R>(call),
        None => call(None),
    }
}

#[inline(never)]
fn on_stack<const N: usize, R>(call: impl FnOnce(Option<Words<'_>>) -> R) -> R {
    let mut words = [MaybeUninit::uninit(); N];
    call(Some(&mut words))
}

fn apart<R>(mut scratch: Scratch, count: usize, call: impl FnOnce(Option<Words<'_>>) -> R) -> R {
    let start: *mut MaybeUninit<usize> = scratch.bytes().as_mut_ptr().cast();
    // SAFETY: page aligned, at least so many, and nobody else's.
    let words = unsafe { core::slice::from_raw_parts_mut(start, count) };
    call(Some(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_child_left_is_taken_over() {
        let name = |thread: u64, pid: u64| thread << PID_BITS | pid;
        let by_1_7 = |holder: u64| may_take(holder, name(1, 7), || 3);
        assert!(by_1_7(0));
        assert!(by_1_7(name(1, 5)), "a child of the same thread, or a sibling");
        assert!(!by_1_7(name(1, 7)), "an interrupted hook");
        assert!(!by_1_7(name(1, 3)), "the parent's interrupted hook");
        assert!(!by_1_7(name(2, 7)) && !by_1_7(name(2, 5)), "another thread");
    }

    #[test]
    fn what_is_held_is_nobody_elses() {
        let taken: Vec<_> = (0..4).map(|_| Scratch::take(KEPT).expect("memory")).collect();
        for (index, one) in taken.iter().enumerate() {
            assert!(
                taken[..index]
                    .iter()
                    .all(|other| (other.memory as usize).abs_diff(one.memory as usize) >= KEPT)
            );
        }
        drop(taken);
        let mut large = Scratch::take(KEPT + 1).expect("memory");
        large.bytes()[KEPT] = 1;
    }
}
