//! The store of slots: one of the process, and one for each tracker that a program makes.
//!
//! ```text
//! shard (per thread number) -> chunk of slots (table, never moved) <- index (by address)
//! ```
//!
//! Nothing here waits for another thread. Two things allocate: a new chunk of slots, and rows of tables. The
//! program's allocator may track what they allocate and so come back here; such an inner call ([`Busy`]) takes
//! only what is there, from the shard or from the reserve.

mod busy;
mod fixed;
mod index;
mod interner;
mod shard;
mod slot;
mod table;

pub use busy::Busy;
pub use interner::{Interner, hash_text, hash_words};
pub use slot::{Beginning, Seen, Slot};
pub use table::Table;

use crate::threads;
use fixed::Fixed;
use index::{CHAINS, Index};
use shard::{CHUNK, CHUNK_BITS, Shard, Taken};
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// Threads beyond this many share cursors.
const SHARDS: usize = 64;

/// The store.
#[derive(Debug)]
pub struct Store {
    shards: Fixed<Shard>,
    /// Chunk number `n` is entry `n - 1`; chunk 0 is the reserve.
    chunks: Table<Box<[Slot]>>,
    /// For inner calls of threads that are just making a chunk. Slot 0 takes what finds no place, and is never listed.
    reserve: Fixed<Slot>,
    reserved: AtomicU32,
    index: Index,
    /// Live slots whose address is not the one that the index has.
    moved: AtomicUsize,
    lost: AtomicU64,
}

/// A slot with its number.
#[derive(Clone, Copy, Debug)]
pub struct Numbered<'s> {
    /// The number; 0 for the slot that takes what finds no place.
    pub number: u32,
    /// The slot.
    pub slot: &'s Slot,
}

impl Store {
    /// The process's store, all of whose fixed parts lie in the program's image. To be used once.
    pub const fn of_process() -> Self {
        static SHARD_LIST: [Shard; SHARDS] = [const { Shard::new() }; SHARDS];
        static RESERVE: [Slot; CHUNK as usize] = [const { Slot::new() }; CHUNK as usize];
        static HEADS: [AtomicU32; CHAINS] = [const { AtomicU32::new(0) }; CHAINS];
        Self::of(Fixed::Static(&SHARD_LIST), Fixed::Static(&RESERVE), Fixed::Static(&HEADS))
    }

    /// A store of its own.
    pub fn new() -> Self {
        let heads = Fixed::own(CHAINS, || AtomicU32::new(0));
        Self::of(Fixed::own(SHARDS, Shard::new), Fixed::own(CHUNK as usize, Slot::new), heads)
    }

    const fn of(shards: Fixed<Shard>, reserve: Fixed<Slot>, heads: Fixed<AtomicU32>) -> Self {
        Self {
            shards,
            chunks: Table::new(),
            reserve,
            reserved: AtomicU32::new(1),
            index: Index::new(heads),
            moved: AtomicUsize::new(0),
            lost: AtomicU64::new(0),
        }
    }

    /// The slot of a number.
    #[inline]
    pub fn slot(&self, number: u32) -> Option<&Slot> {
        let at = (number & (CHUNK - 1)) as usize;
        match number >> CHUNK_BITS {
            0 if at == 0 => None,
            0 => self.reserve.slice().get(at),
            chunk => self.chunks.get(chunk - 1)?.get(at),
        }
    }

    /// Events that found no place.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Begins a slot and puts it into the index.
    #[inline]
    pub fn begin(&self, from: &Beginning) -> &Slot {
        let Numbered { number, slot } = self.take();
        if number != 0 {
            slot.begin(from);
            self.index.insert(from.address.unwrap_or_else(|| slot.identity()), number, slot);
        }
        slot
    }

    /// Joins the live slot of this shared memory, or begins one.
    pub fn begin_shared(&self, address: usize, from: &Beginning) -> &Slot {
        let join = |slot: &Slot| slot.is_shared() && slot.address() == address && slot.acquire();
        let of = |number| self.slot(number);
        if let Some((_, slot)) = self.index.find(address, &of, &join) {
            return slot;
        }
        let Numbered { number, slot } = self.take();
        if number == 0 {
            return slot;
        }
        slot.begin(from);
        match self.index.insert_unless(address, number, slot, &of, &join) {
            Some(known) => {
                slot.withdraw();
                known
            }
            None => slot,
        }
    }

    /// The newest live slot that began at an address and is still there.
    pub fn find_in_place(&self, address: usize) -> Option<&Slot> {
        let here = |slot: &Slot| slot.address() == address;
        self.index.find(address, &|number| self.slot(number), &here).map(|(_, slot)| slot)
    }

    /// The newest live slot at an address, or one that has moved there.
    pub fn find(&self, address: usize) -> Option<&Slot> {
        let is_there = |slot: &&Slot| slot.is_held() && slot.has_moved() && slot.address() == address;
        let moved =
            || if self.moved.load(Ordering::Relaxed) == 0 { None } else { self.iter().find(is_there) };
        self.find_in_place(address).or_else(moved)
    }

    /// Notes where a slot's memory is now and how much it is. True where the block is another one.
    #[inline]
    pub fn seen(&self, slot: &Slot, address: Option<usize>, size: usize) -> bool {
        match slot.seen(address, size) {
            Seen::Same => false,
            Seen::Moved { first_time } => {
                self.moved.fetch_add(usize::from(first_time), Ordering::Relaxed);
                true
            }
        }
    }

    /// An owner of a slot is gone.
    #[inline]
    pub fn release(&self, slot: &Slot, now: u64) {
        if slot.release(now) && slot.has_moved() {
            self.moved.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// All slots that have begun, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Slot> {
        let chunks = self.chunks.iter().flat_map(|(_, chunk)| chunk.iter());
        self.reserve.slice()[1..].iter().chain(chunks).filter(|slot| slot.start() != 0)
    }

    #[inline]
    fn take(&self) -> Numbered<'_> {
        let shard = &self.shards.slice()[threads::number() as usize % SHARDS];
        match shard.take() {
            Taken::Slot(number) => self.numbered(number),
            Taken::SlotAndLow(number) => {
                if let Some(_busy) = Busy::begin() {
                    shard.add(self.make_chunk());
                }
                self.numbered(number)
            }
            Taken::Empty => self.refill(shard),
        }
    }

    #[cold]
    fn refill(&self, shard: &Shard) -> Numbered<'_> {
        loop {
            if !shard.use_spare() {
                let Some(_busy) = Busy::begin() else { return self.last_resort() };
                shard.add(self.make_chunk());
            }
            if let Taken::Slot(number) | Taken::SlotAndLow(number) = shard.take() {
                return self.numbered(number);
            }
        }
    }

    fn numbered(&self, number: u32) -> Numbered<'_> {
        match self.slot(number) {
            Some(slot) => Numbered { number, slot },
            None => self.nowhere(),
        }
    }

    fn make_chunk(&self) -> u32 {
        self.chunks.push((0..CHUNK).map(|_| Slot::new()).collect()) + 1
    }

    fn last_resort(&self) -> Numbered<'_> {
        let more = |used: u32| (used < CHUNK).then_some(used + 1);
        match self.reserved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more) {
            Ok(number) => self.numbered(number),
            Err(_) => self.nowhere(),
        }
    }

    fn nowhere(&self) -> Numbered<'_> {
        self.lost.fetch_add(1, Ordering::Relaxed);
        Numbered { number: 0, slot: &self.reserve.slice()[0] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beginning(address: usize) -> Beginning {
        Beginning { address: Some(address), size: 1, start: 1, ..Beginning::default() }
    }

    #[test]
    fn every_slot_is_listed() {
        let store = Store::new();
        std::thread::scope(|scope| {
            for thread in 1..=4 {
                let store = &store;
                scope.spawn(move || {
                    for n in 0..5_000 {
                        store.begin(&beginning(thread << 32 | n << 4));
                    }
                });
            }
        });
        let mut addresses: Vec<usize> = store.iter().map(Slot::address).collect();
        addresses.sort_unstable();
        let expected: Vec<usize> =
            (1..=4).flat_map(|thread| (0..5_000).map(move |n| thread << 32 | n << 4)).collect();
        assert_eq!(addresses, expected);
        assert_eq!(store.lost(), 0);
    }

    #[test]
    fn inner_calls_take_from_the_reserve() {
        let store = Store::new();
        let busy = Busy::begin();
        for n in 1..CHUNK as usize {
            store.begin(&beginning(n * 16));
        }
        assert_eq!(store.iter().count(), CHUNK as usize - 1);
        assert_eq!(store.lost(), 0);
        store.begin(&beginning(16));
        assert_eq!(store.lost(), 1, "what finds no place is counted");
        drop(busy);
        assert_eq!(store.begin(&beginning(32)).address(), 32);
        assert_eq!(store.lost(), 1);
    }

    #[test]
    fn shared_memory_has_one_slot() {
        let store = Store::new();
        let from = Beginning { shared: true, ..beginning(4096) };
        let first = store.begin_shared(4096, &from);
        assert!(std::ptr::eq(store.begin_shared(4096, &from), first));
        assert!(!first.release(3) && first.release(4));
        assert!(!std::ptr::eq(store.begin_shared(4096, &from), first));
        assert_eq!(store.iter().count(), 2);
    }

    #[test]
    fn what_has_moved_is_found_at_its_new_address() {
        let store = Store::new();
        let slot = store.begin(&beginning(4096));
        assert!(store.find(8192).is_none());
        assert!(store.seen(slot, Some(8192), 2) && !store.seen(slot, Some(8192), 3));
        assert!(store.find(8192).is_some_and(|found| std::ptr::eq(found, slot)));
        assert!(store.find(4096).is_none());
        store.release(slot, 9);
        assert!(store.find(8192).is_none());
        assert_eq!(store.moved.load(Ordering::Relaxed), 0);
    }
}
