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

/// Recently freed blocks by class: for each, a ring of [`DEPTH`] addresses.
///
/// Plain numbers, so that fresh memory of zeros serves as it is: a process that records little touches little of it.
/// (Of arrays that long `vec!` would write the zeros.)
///
/// Who never looks for an address ([`Freed::find`]) needs no tags.
#[derive(Clone, Debug)]
pub struct Freed<const TAGS: bool = true> {
    addresses: Box<[u64; DEPTH * LISTS]>,
    tags: Box<[u32; DEPTH * LISTS]>,
    ends: Box<[Ends; LISTS]>,
}

/// That of each class, and [`UNNAMED`].
const LISTS: usize = CLASSES + 1;

/// So many zeros, which are never on the stack.
fn zeros<T: Clone, const N: usize>(zero: T) -> Box<[T; N]> {
    match vec![zero; N].into_boxed_slice().try_into() {
        Ok(array) => array,
        Err(_) => unreachable!("the slice has this length"),
    }
}

/// Addresses, and 32 bits of each to search by.
struct Ring<'a, const TAGS: bool> {
    addresses: &'a mut [u64; DEPTH],
    tags: &'a mut [u32; DEPTH],
}

impl<const TAGS: bool> Ring<'_, TAGS> {
    #[inline(always)]
    const fn tag(address: u64) -> u32 {
        (address >> 4) as u32
    }

    #[inline(always)]
    const fn set(&mut self, slot: usize, address: u64) {
        self.addresses[slot] = address;
        if TAGS {
            self.tags[slot] = Self::tag(address);
        }
    }

    /// Bit n is set where slot n may hold `address`.
    #[inline(always)]
    fn matches(&self, address: u64) -> u32 {
        let tag = Self::tag(address);
        let bit = |(slot, &other): (usize, &u32)| u32::from(other == tag) << slot;
        self.tags.iter().enumerate().map(bit).fold(0, |all, bit| all | bit)
    }
}

/// Where a ring's newest address is, and how many there are.
#[derive(Clone, Copy, Debug, Default)]
struct Ends {
    top: u8,
    len: u8,
}

impl Ends {
    #[inline(always)]
    const fn slot(self, age: u8) -> usize {
        self.top.wrapping_sub(age) as usize % DEPTH
    }

    #[inline(always)]
    const fn drop_newest(&mut self) {
        self.top = self.top.wrapping_sub(1);
        self.len -= 1;
    }
}

impl<const TAGS: bool> Default for Freed<TAGS> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const TAGS: bool> Freed<TAGS> {
    /// Empty; 390 KiB.
    #[must_use]
    pub fn new() -> Self {
        Self { addresses: zeros(0), tags: zeros(0), ends: zeros(Ends::default()) }
    }

    /// Forgets everything.
    pub fn reset(&mut self) {
        self.ends.fill(Ends::default());
    }

    #[inline(always)]
    fn ring(&mut self, class: usize) -> Option<(Ring<'_, TAGS>, &mut Ends)> {
        let addresses = self.addresses.as_chunks_mut().0.get_mut(class)?;
        let tags = self.tags.as_chunks_mut().0.get_mut(class)?;
        Some((Ring { addresses, tags }, self.ends.get_mut(class)?))
    }

    /// A block of `class` was freed.
    #[inline(always)]
    pub fn push(&mut self, class: usize, address: u64) {
        let Some((mut ring, ends)) = self.ring(class) else { return };
        ends.top = ends.top.wrapping_add(1);
        ends.len = (ends.len + 1).min(DEPTH as u8);
        ring.set(ends.slot(0), address);
    }

    /// Takes the block off the list of `class` that `age` others were freed after.
    #[inline(always)]
    pub fn take(&mut self, class: usize, age: u8) -> Option<u64> {
        let (mut ring, ends) = self.ring(class)?;
        if age >= ends.len {
            return None;
        }
        let address = ring.addresses[ends.slot(age)];
        for newer in (0..age).rev() {
            ring.set(ends.slot(newer + 1), ring.addresses[ends.slot(newer)]);
        }
        ends.drop_newest();
        Some(address)
    }

    /// Whether the newest block of the list is this one.
    #[inline(always)]
    #[must_use]
    pub fn is_newest(&self, class: usize, address: u64) -> bool {
        let Some(&ends) = self.ends.get(class) else { return false };
        let newest = self.addresses.as_chunks::<DEPTH>().0.get(class).map(|ring| ring[ends.slot(0)]);
        ends.len > 0 && newest == Some(address)
    }

    /// Takes the newest block off the list if it is this one.
    pub fn take_back(&mut self, class: usize, address: u64) {
        let Some((ring, ends)) = self.ring(class) else { return };
        if ends.len > 0 && ring.addresses[ends.slot(0)] == address {
            ends.drop_newest();
        }
    }
}

impl Freed<true> {
    /// Takes the block at `address` off the list of `class`; gives how many others were freed after it.
    #[inline(always)]
    pub fn find(&mut self, class: usize, address: u64) -> Option<u8> {
        let (ring, ends) = self.ring(class)?;
        if ends.len > 0 && ring.addresses[ends.slot(0)] == address {
            ends.drop_newest();
            return Some(0);
        }
        if ends.len <= 1 {
            return None;
        }
        self.find_older(class, address)
    }

    #[inline(never)]
    fn find_older(&mut self, class: usize, address: u64) -> Option<u8> {
        let (ring, ends) = self.ring(class)?;
        // The slots from the newest on, one bit each.
        let by_age = ring.matches(address).reverse_bits().rotate_left(u32::from(ends.top) + 1);
        let age = by_age.trailing_zeros() as u8;
        if age >= ends.len || ring.addresses[ends.slot(age)] != address {
            return None;
        }
        self.take(class, age);
        Some(age)
    }
}

/// An allocation of the block of records: `address << 10 | class`.
///
/// Addresses above 2^54 lose their upper bits; no allocator gives them, and the encoder compares.
#[derive(Clone, Copy, Debug)]
pub struct Allocation(u64);

impl Allocation {
    const CLASS_BITS: u32 = CLASSES.ilog2();
    /// Bits of an address that are kept.
    pub const ADDRESS_BITS: u32 = u64::BITS - Self::CLASS_BITS;

    /// Packs the two.
    #[inline(always)]
    #[must_use]
    pub const fn new(address: u64, class: usize) -> Self {
        Self(address << Self::CLASS_BITS | (class % CLASSES) as u64)
    }

    /// Its address.
    #[inline(always)]
    #[must_use]
    pub const fn address(self) -> u64 {
        self.0 >> Self::CLASS_BITS
    }

    /// Class of its size.
    #[inline(always)]
    #[must_use]
    pub const fn class(self) -> usize {
        self.0 as usize % CLASSES
    }
}

/// Finds the latest allocation at an address, without clearing anything between blocks.
///
/// A slot holds `address / 16 << 20 | number`, or 0; four slots share a bucket, the newest first. What is
/// found is only a candidate: the caller compares the address with that of the allocation of this number. So old
/// slots need not be cleared, not even those of blocks that were freed (naming an older allocation at the same
/// address says the same), and where a bucket overflows, an allocation is merely not found.
#[derive(Clone, Debug)]
pub struct Index {
    buckets: Vec<[u64; 4]>,
}

const NUMBER_BITS: u32 = 20;
const NUMBER_MASK: u64 = (1 << NUMBER_BITS) - 1;
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
        Self { buckets: vec![[0; 4]; 1 << BUCKET_BITS] }
    }

    /// Bucket and the upper part of the slot; addresses that no allocator gives may collide.
    ///
    /// Neighbours on the heap are neighbours here: most programs use few cache lines of the index then, which
    /// matters more than an even spread. Each 2 MiB of the heap get an order of their own.
    #[inline(always)]
    const fn place(address: u64) -> (usize, u64) {
        let region = (address >> (BUCKET_BITS + 6)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - BUCKET_BITS);
        let bucket = (address >> 6 ^ region) as usize % (1 << BUCKET_BITS);
        (bucket, address >> 4 << NUMBER_BITS)
    }

    /// Brings what there is for `address` into the cache.
    #[inline(always)]
    #[must_use]
    pub fn touch(&self, address: u64) -> u64 {
        self.buckets[Self::place(address).0][0]
    }

    /// Notes allocation `number` at `address`.
    #[inline(always)]
    pub fn insert(&mut self, address: u64, number: u32) {
        let (bucket, tag) = Self::place(address);
        let slots = &mut self.buckets[bucket];
        if slots[0] & !NUMBER_MASK != tag {
            *slots = [0, slots[0], slots[1], slots[2]];
        }
        slots[0] = tag | u64::from(number) & NUMBER_MASK;
    }

    /// Takes out a candidate for the number of the latest allocation at `address`.
    #[inline(always)]
    pub fn remove(&mut self, address: u64) -> Option<u32> {
        let (bucket, tag) = Self::place(address);
        let slots = &mut self.buckets[bucket];
        let found = slots.iter().position(|&slot| slot & !NUMBER_MASK == tag)?;
        let number = (slots[found] & NUMBER_MASK) as u32;
        for slot in found..3 {
            slots[slot] = slots[slot + 1];
        }
        slots[3] = 0;
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
            freed.push(3, address * 16);
        }
        assert_eq!(freed.find(3, 8 * 16), None);
        assert_eq!(freed.find(4, 9 * 16), None);
        assert_eq!(freed.find(3, 9 * 16), Some(31));
        assert_eq!(freed.take(3, 31), None);
        assert_eq!(freed.take(3, 2), Some(38 * 16));
        assert_eq!(freed.take(3, 2), Some(37 * 16));
        assert_eq!(freed.take(3, 0), Some(40 * 16));
        freed.take_back(3, 38 * 16);
        freed.take_back(3, 39 * 16);
        assert_eq!(freed.take(3, 0), Some(36 * 16));
        freed.reset();
        assert_eq!(freed.take(3, 0), None);
        assert_eq!(freed.take(CLASSES + 1, 0), None);
    }

    #[test]
    fn a_list_is_what_a_plain_one_is() {
        let mut rng = crate::trace::testing::Rng(4);
        let (mut freed, mut plain) = (Freed::new(), Vec::new());
        for i in 0..20_000u64 {
            let age = rng.below(DEPTH as u64) as usize;
            let at = plain.len().checked_sub(age + 1);
            match rng.below(4) {
                0 | 1 => {
                    freed.push(UNNAMED, i * 16);
                    plain.push(i * 16);
                    plain.drain(..plain.len().saturating_sub(DEPTH));
                }
                2 => assert_eq!(freed.take(UNNAMED, age as u8), at.map(|at| plain.remove(at))),
                _ => {
                    let Some(at) = at else { continue };
                    assert_eq!(freed.find(UNNAMED, plain.remove(at)), Some(age as u8));
                }
            }
        }
    }

    #[test]
    fn allocations_keep_address_and_class() {
        let allocation = Allocation::new(0x7fff_ffff_fff0, 1023);
        assert_eq!((allocation.address(), allocation.class()), (0x7fff_ffff_fff0, 1023));
    }

    #[test]
    fn allocations_are_found_once() {
        let mut index = Index::new();
        for number in 1..1000 {
            index.insert(u64::from(number) * 48, number);
        }
        index.insert(48, 2000);
        assert_eq!(index.remove(48), Some(2000));
        assert_eq!(index.remove(32), None);
        assert_eq!(index.remove(1000 * 48), None);
        let found = (2..1000).filter(|&number| index.remove(u64::from(number) * 48) == Some(number)).count();
        assert!(found > 990, "{found}");
    }

    #[test]
    fn sizes_have_classes() {
        assert_eq!([0, 24, 25, 40, 41].map(units), [2, 2, 3, 3, 4]);
        assert!(class(units(u64::MAX)) < CLASSES);
    }
}
