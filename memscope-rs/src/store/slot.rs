//! The record of one variable, or of one block that was tracked by hand: a cache line of atomics.
//!
//! A slot is used once. It goes from *unused* (`start` is 0) to *live* to *ended* (`end` is not 0) and never back, so
//! whoever holds a reference to it can read it at any time, without a lock and without fear of finding
//! another variable in it.

use crate::threads;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize};

/// The memory has several owners (`Rc`, `Arc`): the last one ends it.
const SHARED: u32 = 1 << 31;
/// The address has changed since the slot was entered into the index.
const MOVED: u32 = 1 << 30;
/// The end was given by the caller, not measured; it may lie in the future.
const TOLD: u32 = 1 << 29;
/// The number of owners.
const OWNERS: u32 = TOLD - 1;

/// The slot. Times are those of [`crate::clock::now`]; names, scopes, stacks are numbers of their tables.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Slot {
    /// The heap block's address when last looked at; 0 where the value has none.
    address: AtomicUsize,
    size: AtomicUsize,
    start: AtomicU64,
    end: AtomicU64,
    name: AtomicU32,
    scope: AtomicU32,
    stack: AtomicU32,
    thread: AtomicU32,
    end_thread: AtomicU32,
    borrows: AtomicU32,
    /// Owners and flags. With no owner left the slot is ended, or about to be.
    hold: AtomicU32,
    /// The slot behind this one in its chain of the index.
    pub next: AtomicU32,
}

const _: () = assert!(size_of::<usize>() != 8 || size_of::<Slot>() == 64);

/// What a slot is begun with.
#[derive(Clone, Copy, Debug, Default)]
pub struct Beginning {
    /// Address of the heap block, if there is one.
    pub address: Option<usize>,
    /// Size in bytes.
    pub size: usize,
    /// When.
    pub start: u64,
    /// Number of the name.
    pub name: u32,
    /// Number of the scope.
    pub scope: u32,
    /// Number of the stack.
    pub stack: u32,
    /// Whether the memory may have several owners.
    pub shared: bool,
}

/// What a look at a value's memory has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// The block is still the same.
    Same,
    /// It is another one.
    Moved {
        /// For the first time.
        first_time: bool,
    },
}

impl Slot {
    /// An unused slot.
    pub const fn new() -> Self {
        Self {
            address: AtomicUsize::new(0),
            size: AtomicUsize::new(0),
            start: AtomicU64::new(0),
            end: AtomicU64::new(0),
            name: AtomicU32::new(0),
            scope: AtomicU32::new(0),
            stack: AtomicU32::new(0),
            thread: AtomicU32::new(0),
            end_thread: AtomicU32::new(0),
            borrows: AtomicU32::new(0),
            hold: AtomicU32::new(0),
            next: AtomicU32::new(0),
        }
    }

    /// Makes the slot live, with one owner. The caller alone knows the slot.
    pub fn begin(&self, from: &Beginning) {
        self.address.store(from.address.unwrap_or(0), Relaxed);
        self.size.store(from.size, Relaxed);
        self.name.store(from.name, Relaxed);
        self.scope.store(from.scope, Relaxed);
        self.stack.store(from.stack, Relaxed);
        self.thread.store(threads::number(), Relaxed);
        self.hold.store(if from.shared { SHARED | 1 } else { 1 }, Relaxed);
        // Readers look at the rest only where this is set.
        self.start.store(from.start, Release);
    }

    /// Takes back a slot that [`Slot::begin`] made and nobody has seen.
    pub fn withdraw(&self) {
        self.hold.store(0, Relaxed);
        self.start.store(0, Release);
    }

    /// When it began; 0 while it is unused.
    pub fn start(&self) -> u64 {
        self.start.load(Acquire)
    }

    /// When it ended; 0 while it lives.
    pub fn end(&self) -> u64 {
        self.end.load(Acquire)
    }

    /// Whether it had ended at a time.
    pub fn had_ended(&self, now: u64) -> bool {
        let end = self.end();
        end != 0 && (end <= now || self.hold.load(Relaxed) & TOLD != 0)
    }

    /// Whether it has an owner.
    pub fn is_held(&self) -> bool {
        self.hold.load(Acquire) & OWNERS != 0
    }

    /// The address as last seen. A value without a block of its own has that of its slot, which is nobody else's.
    pub fn address(&self) -> usize {
        match self.address.load(Relaxed) {
            0 => self.identity(),
            address => address,
        }
    }

    /// The slot's own address.
    pub fn identity(&self) -> usize {
        std::ptr::from_ref(self) as usize
    }

    /// Bytes as last seen.
    pub fn size(&self) -> usize {
        self.size.load(Relaxed)
    }

    /// Number of the name.
    pub fn name(&self) -> u32 {
        self.name.load(Relaxed)
    }

    /// Gives it a name after its beginning.
    pub fn set_name(&self, name: u32) {
        self.name.store(name, Relaxed);
    }

    /// Number of the scope.
    pub fn scope(&self) -> u32 {
        self.scope.load(Relaxed)
    }

    /// Number of the stack.
    pub fn stack(&self) -> u32 {
        self.stack.load(Relaxed)
    }

    /// Number of the thread that began it.
    pub fn thread(&self) -> u32 {
        self.thread.load(Relaxed)
    }

    /// Number of the thread that ended it.
    pub fn end_thread(&self) -> u32 {
        self.end_thread.load(Relaxed)
    }

    /// How often it was borrowed.
    pub fn borrows(&self) -> u32 {
        self.borrows.load(Relaxed)
    }

    /// Counts a borrow.
    #[inline]
    pub fn borrowed(&self) {
        self.borrows.fetch_add(1, Relaxed);
    }

    /// Whether it is shared.
    pub fn is_shared(&self) -> bool {
        self.hold.load(Relaxed) & SHARED != 0
    }

    /// Whether its address has changed.
    pub fn has_moved(&self) -> bool {
        self.hold.load(Relaxed) & MOVED != 0
    }

    /// Notes where the value's memory is now and how much it is.
    #[inline]
    pub fn seen(&self, address: Option<usize>, size: usize) -> Seen {
        if self.size.load(Relaxed) != size {
            self.size.store(size, Relaxed);
        }
        let Some(address) = address else { return Seen::Same };
        if self.address.load(Relaxed) == address {
            return Seen::Same;
        }
        self.address.store(address, Relaxed);
        Seen::Moved { first_time: self.hold.fetch_or(MOVED, Relaxed) & MOVED == 0 }
    }

    /// One more owner; false where it has none any more.
    pub fn acquire(&self) -> bool {
        let more = |hold: u32| (hold & OWNERS != 0 && hold & OWNERS != OWNERS).then(|| hold + 1);
        self.hold.fetch_update(AcqRel, Acquire, more).is_ok()
    }

    /// One owner less; the last one ends it at `now`. True where this call ended it.
    #[inline]
    pub fn release(&self, now: u64) -> bool {
        let less = |hold: u32| (hold & OWNERS != 0).then(|| hold - 1);
        match self.hold.fetch_update(AcqRel, Acquire, less) {
            Ok(before) if before & OWNERS == 1 => {
                self.finish(now);
                true
            }
            _ => false,
        }
    }

    /// Ends it, however many owners it has, at a time that the caller names. False where it had ended before.
    pub fn end_at(&self, end: u64) -> bool {
        let none = |hold: u32| (hold & OWNERS != 0).then_some(hold & !OWNERS | TOLD);
        let ended = self.hold.fetch_update(AcqRel, Acquire, none).is_ok();
        if ended {
            self.finish(end);
        }
        ended
    }

    /// The one that took the last owner writes the end.
    fn finish(&self, end: u64) {
        self.end_thread.store(threads::number(), Relaxed);
        self.end.store(end.max(self.start.load(Relaxed)), Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_owner_ends_it() {
        let slot = Slot::new();
        slot.begin(&Beginning { start: 5, shared: true, address: Some(64), ..Beginning::default() });
        assert!(slot.acquire() && slot.acquire());
        assert!(!slot.release(6) && !slot.release(7));
        assert_eq!(slot.end(), 0);
        assert!(slot.release(8));
        assert_eq!(slot.end(), 8);
        assert!(!slot.release(9) && !slot.acquire() && !slot.end_at(10));
        assert_eq!(slot.end(), 8);
    }

    #[test]
    fn an_end_is_written_once() {
        let slot = Slot::new();
        slot.begin(&Beginning { start: 5, ..Beginning::default() });
        assert!(slot.end_at(100));
        assert!(!slot.release(50));
        assert_eq!((slot.end(), slot.had_ended(60)), (100, true));
        assert_eq!(slot.address(), slot.identity());
    }

    #[test]
    fn another_block_is_noticed() {
        let slot = Slot::new();
        slot.begin(&Beginning { address: Some(16), size: 3, start: 1, ..Beginning::default() });
        assert!(slot.seen(Some(16), 3) == Seen::Same && !slot.has_moved());
        assert!(slot.seen(Some(32), 6) == Seen::Moved { first_time: true } && slot.has_moved());
        assert_eq!(slot.seen(Some(64), 6), Seen::Moved { first_time: false });
        assert_eq!(slot.seen(None, 0), Seen::Same);
        assert_eq!((slot.address(), slot.size()), (64, 0));
    }
}
