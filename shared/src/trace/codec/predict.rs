//! What encoder and decoder both remember within a block, to predict addresses by.

/// Classes of block sizes: each 16 bytes wide. Larger sizes share them, which only makes guesses worse.
const CLASSES: usize = 1024;
/// The list of freed blocks whose allocations are not in this block of records.
pub const UNNAMED: usize = CLASSES;
/// Blocks that a list remembers.
pub const DEPTH: usize = super::op::NEAR;

/// What a block of `size` bytes takes of an allocator's memory, in units of 16 bytes: a header of 8, and
/// rounded up, but no less than 32 bytes, as glibc does.
#[inline(always)]
#[must_use]
pub const fn units(size: u64) -> u64 {
    let units = size.wrapping_add(23) >> 4;
    if units < 2 { 2 } else { units }
}

/// The class of blocks of that many units.
#[inline(always)]
#[must_use]
pub const fn class(units: u64) -> usize {
    units as usize % CLASSES
}

/// A list of freed blocks: a ring of [`DEPTH`] addresses, the newest at `top`.
#[derive(Clone, Debug)]
struct Ring {
    slots: [u64; DEPTH],
    top: u8,
    len: u8,
}

/// Recently freed blocks by class.
#[derive(Clone, Debug)]
pub struct Freed {
    rings: Vec<Ring>,
}

impl Default for Freed {
    fn default() -> Self {
        Self::new()
    }
}

impl Freed {
    /// Empty; 280 KiB.
    #[must_use]
    pub fn new() -> Self {
        Self { rings: vec![Ring { slots: [0; DEPTH], top: 0, len: 0 }; CLASSES + 1] }
    }

    /// Forgets everything.
    pub fn reset(&mut self) {
        for ring in &mut self.rings {
            ring.len = 0;
        }
    }

    /// A block of `class` was freed.
    #[inline]
    pub fn push(&mut self, class: usize, address: u64) {
        let Some(ring) = self.rings.get_mut(class) else { return };
        ring.top = ring.top.wrapping_add(1);
        ring.slots[usize::from(ring.top) % DEPTH] = address;
        ring.len = (ring.len + 1).min(DEPTH as u8);
    }

    /// How many blocks of `class` were freed after the one at `address`, if it is on the list.
    #[inline]
    #[must_use]
    pub fn find(&self, class: usize, address: u64) -> Option<u8> {
        let ring = self.rings.get(class)?;
        (0..ring.len).find(|&age| ring.slots[ring.slot(age)] == address)
    }

    /// Takes the block off the list of `class` that `age` others were freed after.
    #[inline]
    pub fn take(&mut self, class: usize, age: u8) -> Option<u64> {
        let ring = self.rings.get_mut(class)?;
        if age >= ring.len {
            return None;
        }
        let address = ring.slots[ring.slot(age)];
        for newer in (0..age).rev() {
            ring.slots[ring.slot(newer + 1)] = ring.slots[ring.slot(newer)];
        }
        ring.top = ring.top.wrapping_sub(1);
        ring.len -= 1;
        Some(address)
    }

    /// Takes the newest block off the list if it is this one.
    #[inline]
    pub fn take_back(&mut self, class: usize, address: u64) {
        let Some(ring) = self.rings.get_mut(class) else { return };
        if ring.len > 0 && ring.slots[ring.slot(0)] == address {
            ring.top = ring.top.wrapping_sub(1);
            ring.len -= 1;
        }
    }
}

impl Ring {
    #[inline(always)]
    fn slot(&self, age: u8) -> usize {
        usize::from(self.top.wrapping_sub(age)) % DEPTH
    }
}

/// An allocation of the block of records.
#[derive(Clone, Copy, Debug)]
pub struct Allocation {
    /// Its address.
    pub address: u64,
    /// Class of its size.
    pub class: u32,
}

/// Finds the latest allocation at an address, without clearing anything between blocks.
///
/// A slot holds `address / 16 << 20 | number % 2^20`, four slots share a bucket. What is found is
/// only a candidate: the caller compares the address with that of the allocation of this number. So old slots
/// need not be cleared, and where a bucket overflows, an allocation is merely not found.
#[derive(Clone, Debug)]
pub struct Index {
    buckets: Vec<[u64; 4]>,
    turn: u8,
}

const NUMBER_BITS: u32 = 20;
const BUCKET_BITS: u32 = 15;

/// Most allocations that a block can hold, so that numbers are told apart.
const _: () = assert!(super::MAX_BLOCK_WORDS / 3 < 1 << NUMBER_BITS);

impl Default for Index {
    fn default() -> Self {
        Self::new()
    }
}

impl Index {
    /// Empty; 1 MiB.
    #[must_use]
    pub fn new() -> Self {
        Self { buckets: vec![[0; 4]; 1 << BUCKET_BITS], turn: 0 }
    }

    /// Bucket and the upper part of the slot; addresses that no allocator gives may collide.
    #[inline(always)]
    const fn place(address: u64) -> (usize, u64) {
        let hash = (address >> 4).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        ((hash >> (64 - BUCKET_BITS)) as usize, address >> 4 << NUMBER_BITS)
    }

    /// Notes allocation `number` at `address`.
    #[inline]
    pub fn insert(&mut self, address: u64, number: u32) {
        let (bucket, tag) = Self::place(address);
        let slots = &mut self.buckets[bucket];
        let same = |slot: &u64| slot >> NUMBER_BITS << NUMBER_BITS == tag;
        let slot = slots.iter().position(same).or_else(|| slots.iter().position(|&slot| slot == 0));
        let slot = slot.unwrap_or_else(|| {
            self.turn = self.turn.wrapping_add(1);
            usize::from(self.turn % 4)
        });
        slots[slot] = tag | u64::from(number) & ((1 << NUMBER_BITS) - 1);
    }

    /// Takes out a candidate for the number of the latest allocation at `address`.
    #[inline]
    pub fn remove(&mut self, address: u64) -> Option<u32> {
        let (bucket, tag) = Self::place(address);
        let slots = &mut self.buckets[bucket];
        let slot =
            slots.iter_mut().find(|slot| **slot != 0 && **slot >> NUMBER_BITS << NUMBER_BITS == tag)?;
        let number = *slot as u32 & ((1 << NUMBER_BITS) - 1);
        *slot = 0;
        Some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn freed_blocks_come_back_last_in_first_out() {
        let mut freed = Freed::new();
        for address in 1..=40 {
            freed.push(3, address);
        }
        assert_eq!(freed.find(3, 8), None);
        assert_eq!(freed.find(3, 9), Some(31));
        assert_eq!(freed.find(4, 9), None);
        assert_eq!(freed.take(3, 31), Some(9));
        assert_eq!(freed.take(3, 31), None);
        assert_eq!(freed.take(3, 2), Some(38));
        assert_eq!(freed.take(3, 2), Some(37));
        assert_eq!(freed.take(3, 0), Some(40));
        freed.take_back(3, 38);
        freed.take_back(3, 39);
        assert_eq!(freed.take(3, 0), Some(36));
        freed.reset();
        assert_eq!(freed.take(3, 0), None);
        assert_eq!(freed.take(CLASSES + 1, 0), None);
    }

    #[test]
    fn a_list_is_what_a_plain_one_is() {
        let mut rng = crate::trace::testing::Rng(4);
        let (mut freed, mut plain) = (Freed::new(), Vec::new());
        for i in 0..20_000u64 {
            if rng.chance(2) {
                freed.push(UNNAMED, i);
                plain.push(i);
                plain.drain(..plain.len().saturating_sub(DEPTH));
            } else {
                let age = rng.below(DEPTH as u64) as usize;
                let expected = plain.len().checked_sub(age + 1).map(|at| plain.remove(at));
                assert_eq!(freed.take(UNNAMED, age as u8), expected);
            }
        }
    }

    #[test]
    fn allocations_are_found_once() {
        let mut index = Index::new();
        for number in 1..1000 {
            index.insert(u64::from(number) * 48, number);
        }
        index.insert(48, 2000);
        assert_eq!(index.remove(48), Some(2000));
        assert_eq!(index.remove(48), None);
        let found = (2..1000).filter(|&number| index.remove(u64::from(number) * 48) == Some(number)).count();
        assert!(found > 990, "{found}");
    }

    #[test]
    fn sizes_have_classes() {
        assert_eq!([0, 24, 25, 40, 41].map(units), [2, 2, 3, 3, 4]);
        assert!(class(units(u64::MAX)) < CLASSES);
    }
}
