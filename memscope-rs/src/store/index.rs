//! Slots by address, without a lock.
//!
//! A hash table of chains. A slot is put in at the head of its chain, once; a walk takes the slots out that it
//! finds ended. That is safe without any reclamation because a slot is never used again: an ended one stays
//! ended, its link only ever comes to skip more ended ones, so from every link the live slots behind it
//! remain reachable, whatever other threads take out at the same time.

use super::fixed::Fixed;
use super::slot::Slot;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};

/// Number of chains, as a power of two.
const CHAIN_BITS: u32 = 16;
/// Number of chains.
pub const CHAINS: usize = 1 << CHAIN_BITS;

/// The chains.
#[derive(Debug)]
pub struct Index {
    /// Their heads: numbers of slots, 0 for none.
    heads: Fixed<AtomicU32>,
}

const fn chain(address: usize) -> usize {
    ((address as u64 >> 3).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - CHAIN_BITS)) as usize
}

impl Index {
    /// An empty index with these [`CHAINS`] heads.
    pub const fn new(heads: Fixed<AtomicU32>) -> Self {
        Self { heads }
    }

    fn head(&self, address: usize) -> &AtomicU32 {
        &self.heads.slice()[chain(address)]
    }

    /// Puts a slot in that lives and is in no chain.
    #[inline]
    pub fn insert(&self, address: usize, number: u32, slot: &Slot) {
        let head = self.head(address);
        let mut first = head.load(Relaxed);
        loop {
            slot.next.store(first, Relaxed);
            match head.compare_exchange_weak(first, number, AcqRel, Relaxed) {
                Ok(_) => return,
                Err(now) => first = now,
            }
        }
    }

    /// Puts a slot in, unless one is there already that `wanted` takes: then that one.
    ///
    /// New slots come at the head only. So if the head is still what it was when the search began, no slot has
    /// come since.
    pub fn insert_unless<'s>(
        &self,
        address: usize,
        number: u32,
        slot: &Slot,
        of: &impl Fn(u32) -> Option<&'s Slot>,
        wanted: &impl Fn(&Slot) -> bool,
    ) -> Option<&'s Slot> {
        let head = self.head(address);
        loop {
            let first = head.load(Acquire);
            if let Some((_, found)) = walk(head, of, wanted) {
                return Some(found);
            }
            // The walk may have taken out what was first.
            let first = if head.load(Relaxed) == first { first } else { continue };
            slot.next.store(first, Relaxed);
            if head.compare_exchange(first, number, AcqRel, Relaxed).is_ok() {
                return None;
            }
        }
    }

    /// The newest live slot of this address's chain that `wanted` takes.
    pub fn find<'s>(
        &self,
        address: usize,
        of: &impl Fn(u32) -> Option<&'s Slot>,
        wanted: &impl Fn(&Slot) -> bool,
    ) -> Option<(u32, &'s Slot)> {
        walk(self.head(address), of, wanted)
    }
}

/// Walks a chain, takes ended slots out of it.
fn walk<'s>(
    head: &AtomicU32,
    of: &impl Fn(u32) -> Option<&'s Slot>,
    wanted: &impl Fn(&Slot) -> bool,
) -> Option<(u32, &'s Slot)> {
    let mut link = head;
    loop {
        let number = link.load(Acquire);
        let slot = of(number)?;
        if slot.is_held() {
            if wanted(slot) {
                return Some((number, slot));
            }
            link = &slot.next;
        } else {
            let behind = slot.next.load(Acquire);
            // Where this fails, the link leads elsewhere now, and is read again.
            let _ = link.compare_exchange(number, behind, AcqRel, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::slot::Beginning;
    use super::*;

    fn index() -> Index {
        Index::new(Fixed::own(CHAINS, || AtomicU32::new(0)))
    }

    fn slots(count: usize) -> Vec<Slot> {
        let slots: Vec<Slot> = (0..count).map(|_| Slot::new()).collect();
        for slot in &slots {
            slot.begin(&Beginning { address: Some(4096), start: 1, shared: true, ..Beginning::default() });
        }
        slots
    }

    #[test]
    fn ended_slots_are_taken_out() {
        let (index, slots) = (index(), slots(100));
        let of = |number: u32| slots.get((number as usize).checked_sub(1)?);
        for (at, slot) in slots.iter().enumerate() {
            index.insert(4096, at as u32 + 1, slot);
        }
        for slot in &slots[1..] {
            assert!(slot.release(2));
        }
        let found = index.find(4096, &of, &|slot| slot.address() == 4096).unwrap();
        assert_eq!(found.0, 1);
        assert_eq!(index.head(4096).load(Relaxed), 1);
        assert!(slots[0].release(2));
        assert!(index.find(4096, &of, &|_| true).is_none());
        assert_eq!(index.head(4096).load(Relaxed), 0);
    }

    #[test]
    fn one_slot_of_an_address_wins() {
        let (index, slots) = (index(), slots(64));
        let of = |number: u32| slots.get((number as usize).checked_sub(1)?);
        let winners: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|thread| {
                    let (index, slots, of) = (&index, &slots, &of);
                    scope.spawn(move || {
                        let mine = (thread..slots.len()).step_by(4);
                        mine.filter(|&at| {
                            let known = |slot: &Slot| slot.acquire();
                            index.insert_unless(4096, at as u32 + 1, &slots[at], of, &known).is_none()
                        })
                        .count()
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(winners, 1);
    }
}
