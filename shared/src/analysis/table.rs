//! The live blocks by address: a hash table with open addressing.
//!
//! Every event asks it once, so it holds whole entries of 32 bytes in one array: an event touches one
//! or two cache lines. Entries that are removed leave no mark; those behind move up instead.

use super::hash::Key;

/// A block. Times are ns since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Block {
    /// Its address, not 0.
    pub address: u64,
    /// When it was allocated.
    pub start: u64,
    /// Bytes asked for.
    pub size: u64,
    /// Index of its site.
    pub site: u32,
    /// Index of the stream that allocated it.
    pub stream: u32,
}

const _: () = assert!(size_of::<Block>() == 32);

/// Blocks by address.
#[derive(Debug)]
pub struct Table {
    /// Entries with address 0 are empty. A power of two of them.
    slots: Vec<Block>,
    /// Shifts a hash down to a slot's index.
    shift: u32,
    len: usize,
    key: Key,
}

const FEWEST: usize = 1 << 10;
/// Tables with less slots are at most a quarter full: where memory is near, wrong guesses at how far a look-up goes cost most.
const ROOMY: usize = 1 << 13;
/// Slots from which on a look-up may wait for memory.
const FAR: usize = 1 << 12;

impl Default for Table {
    fn default() -> Self {
        Self::new()
    }
}

impl Table {
    /// Without blocks.
    #[must_use]
    pub fn new() -> Self {
        let slots = vec![Block::default(); FEWEST];
        Self { slots, shift: 64 - FEWEST.ilog2(), len: 0, key: Key::default() }
    }

    /// Number of blocks.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The blocks, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Block> {
        self.slots.iter().filter(|block| block.address != 0)
    }

    /// Whether the nearer caches do not hold the table.
    #[inline]
    #[must_use]
    pub const fn is_far(&self) -> bool {
        self.slots.len() > FAR
    }

    #[inline]
    fn home(&self, address: u64) -> usize {
        (self.key.hash(address) >> self.shift) as usize
    }

    /// Reads what a look-up would read first, so that it is near when that comes: the slot's cache line, where large
    /// tables begin with one, and the next, into which half of all look-ups and most removals go on.
    #[inline]
    #[must_use]
    pub fn touch(&self, address: u64) -> u64 {
        let (home, mask) = (self.home(address), self.slots.len() - 1);
        self.slots[home & mask].address ^ self.slots[((home | 1) + 1) & mask].address
    }

    /// The slot of the block at `address`, or the empty one where it would go.
    #[inline]
    fn find(&self, address: u64) -> Result<usize, usize> {
        let mask = self.slots.len() - 1;
        let mut at = self.home(address) & mask;
        loop {
            match self.slots[at & mask].address {
                found if found == address => return Ok(at),
                0 => return Err(at),
                _ => at = (at + 1) & mask,
            }
        }
    }

    /// The block at `address`.
    #[inline]
    #[must_use]
    pub fn get(&self, address: u64) -> Option<&Block> {
        self.find(address).ok().map(|at| &self.slots[at])
    }

    /// Adds a block; false, and nothing is done, where there is one at its address.
    #[inline]
    pub fn insert(&mut self, block: Block) -> bool {
        let Err(at) = self.find(block.address) else { return false };
        // One by one: what has just been written in other pieces than it is read in makes a processor wait.
        let slot = &mut self.slots[at];
        slot.address = block.address;
        slot.start = block.start;
        slot.size = block.size;
        slot.site = block.site;
        slot.stream = block.stream;
        self.len += 1;
        let full = if self.slots.len() < ROOMY { 2 } else { 5 };
        if self.len * 8 > self.slots.len() * full {
            self.grow();
        }
        true
    }

    /// Takes the block at `address` out.
    #[inline]
    pub fn remove(&mut self, address: u64) -> Option<Block> {
        let mut hole = self.find(address).ok()?;
        let block = self.slots[hole];
        let mask = self.slots.len() - 1;
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            let next = self.slots[at];
            if next.address == 0 {
                break;
            }
            // It may move up unless its home lies behind the hole.
            let home = self.home(next.address) & mask;
            if (at.wrapping_sub(home) & mask) >= (at.wrapping_sub(hole) & mask) {
                self.slots[hole] = next;
                hole = at;
            }
        }
        self.slots[hole].address = 0;
        self.len -= 1;
        Some(block)
    }

    /// Doubles the table where it is: fresh memory costs more than all else here, so none is given back to be fetched again.
    ///
    /// Each block's new home lies at twice its old one, so the last ones go first, into what is new or already left.
    #[cold]
    #[inline(never)]
    fn grow(&mut self) {
        let (old, new) = (self.slots.len(), self.slots.len() * 2);
        self.slots.resize(new, Block::default());
        self.shift -= 1;
        let mut late = Vec::new();
        for at in (0..old).rev() {
            let block = std::mem::take(&mut self.slots[at]);
            if block.address == 0 {
                continue;
            }
            let home = self.home(block.address);
            let free = (home..new).find(|&to| self.slots[to].address == 0);
            match free.filter(|_| home > at) {
                Some(to) => self.slots[to] = block,
                // Among those that still have to go, at the start of the table, or round its end.
                None => late.push(block),
            }
        }
        for block in late {
            if let Err(at) = self.find(block.address) {
                self.slots[at] = block;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Rng;
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn agrees_with_a_map() {
        let mut random = Rng::new(11);
        let (mut table, mut map) = (Table::new(), BTreeMap::new());
        for round in 0..60_000u64 {
            // First it fills, then it empties.
            let address = (1 + random.below(12_000)) * 16;
            if random.below(60_000) > round {
                let block = Block { address, start: round, ..Block::default() };
                assert_eq!(table.insert(block), !map.contains_key(&address));
                map.entry(address).or_insert(block);
            } else {
                assert_eq!(table.remove(address), map.remove(&address));
            }
            assert_eq!(table.len(), map.len());
            assert_eq!(table.get(address), map.get(&address));
        }
        let mut left: Vec<_> = table.iter().copied().collect();
        left.sort_by_key(|block| block.address);
        assert_eq!(left, map.into_values().collect::<Vec<_>>());
    }

    #[test]
    fn holds_any_address() {
        let mut table = Table::new();
        let addresses = [1, 2, 3, (1 << 56) - 1, 1 << 55, u64::MAX];
        for address in addresses {
            assert!(table.insert(Block { address, ..Block::default() }));
        }
        for address in addresses {
            let _ = table.touch(address);
            assert_eq!(table.remove(address).map(|block| block.address), Some(address));
        }
        assert!(table.is_empty());
    }

    #[test]
    fn addresses_chosen_to_collide_do_no_harm() {
        // All of these belong to one slot in 1,024 of another table; without a key they would here, too.
        let other = Table::new();
        let chosen = (1u64..).map(|n| n * 16).filter(|&address| other.home(address) == 5).take(8_000);
        let mut table = Table::new();
        let mut steps = 0;
        for address in chosen {
            assert!(table.insert(Block { address, ..Block::default() }));
            let at = table.find(address).unwrap();
            steps += at.wrapping_sub(table.home(address)) & (table.slots.len() - 1);
        }
        assert!(steps < 8 * 8_000, "{steps} steps");
    }
}
