//! Names of blocks: the variables that own them, where the program told.
//!
//! The catalog reads what the names are ([`Names`]). A block has at most one name at a time, the last that it was given
//! ([`NamedBlocks`]). A `realloc` hands it on to the block that it returns (the next start in the stream of the
//! old one's end), as long as the variable is there.
//!
//! A block that is named surely lives at that moment. But where another thread allocated or frees it, the stamps may say
//! otherwise by the clocks' skew, and another block of the same address would be taken for it. Such names are dropped: a
//! block may go without a name, and never has a wrong one.

use super::hash::Map;
use super::pairing::{Block, NO_STREAM};
use super::variables::Variables;
use crate::record::{self, NAMED_UNIT};

/// How far two threads' clocks may disagree, in ns, with room to spare.
const SKEW: u64 = 2_000;

/// What a block is called.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Name {
    /// The variable; `None` where it was not told, as the others.
    pub variable: Option<String>,
    /// Its type.
    pub type_name: Option<String>,
    /// Its scope.
    pub scope: Option<String>,
}

/// The names by their ids.
#[derive(Debug, Default)]
pub struct Names {
    names: Map<u32, Name>,
    bytes: Vec<u8>,
}

impl Names {
    /// Reads a `NAME` record.
    pub fn read(&mut self, record: &[u64]) {
        let Some(name) = record::Name::decode(record, &mut self.bytes) else { return };
        let text = |bytes: &[u8]| (!bytes.is_empty()).then(|| String::from_utf8_lossy(bytes).into_owned());
        let (variable, type_name, scope) = (text(name.name), text(name.type_name), text(name.scope));
        self.names.insert(name.id, Name { variable, type_name, scope });
    }

    /// All names with their ids.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Name)> {
        self.names.iter().map(|(&id, name)| (id, name))
    }

    /// The name of an id.
    #[must_use]
    pub fn get(&self, id: u32) -> Option<&Name> {
        self.names.get(&id)
    }
}

/// A name that a block was given.
#[derive(Clone, Copy, Debug)]
struct Given {
    id: u32,
    /// The variable is there: a `realloc` hands the name on.
    held: bool,
    /// When it was given, and in which stream.
    time: u64,
    stream: u32,
}

/// The names of blocks that live, or have ended a moment ago.
#[derive(Debug, Default)]
pub struct NamedBlocks {
    /// By address and start.
    names: Map<(u64, u64), Given>,
    /// Of streams that are inside of a `realloc`: the name that its result gets.
    moving: Map<u32, u32>,
    /// Sums of each variable.
    pub variables: Variables,
    /// Looks of [`NamedBlocks::around`] so far, less those that its calls have earned.
    looks: u64,
}

/// Looks for blocks around addresses that a recording may cost beyond [`EARNED`] for each: enough for the tables of a map that grows to
/// 1 GiB. A damaged recording must not cost more.
const LOOKS: u64 = 1 << 27;
/// Looks that each call may cost anyway.
const EARNED: u64 = 64;

impl NamedBlocks {
    /// The live block that an address lies in, where it begins at most `reach` bytes before: `at` answers for one address.
    pub fn around<'b>(
        &mut self,
        address: u64,
        reach: u64,
        at: impl Fn(u64) -> Option<&'b Block>,
    ) -> Option<&'b Block> {
        let first = address - address % NAMED_UNIT;
        let steps = reach.div_ceil(NAMED_UNIT).min(LOOKS - self.looks + EARNED);
        let mut looks = 0;
        let starts = (0..=steps).map_while(|step| first.checked_sub(step * NAMED_UNIT));
        let found = starts.take_while(|&start| start != 0).inspect(|_| looks += 1).find_map(at);
        self.looks = (self.looks + looks).saturating_sub(EARNED).min(LOOKS);
        found.filter(|found| address - found.address < found.size)
    }

    /// Names a block at a time, as a stream tells. Id 0: the block's variable is gone.
    pub fn name(&mut self, block: &Block, id: u32, time: u64, stream: u32) {
        let key = (block.address, block.start);
        if id == 0 {
            return self.names.get_mut(&key).into_iter().for_each(|given| given.held = false);
        }
        // Of another stream and just begun: what the stream knows may be the block before.
        if block.stream == stream || block.start + SKEW <= time {
            let before = self.names.insert(key, Given { id, held: true, time, stream });
            let [old, new] = [before.map(|before| before.id), Some(id)]
                .map(|id| id.and_then(|id| self.variables.of_id(id)));
            if old == new {
                return;
            }
            if let Some(number) = old {
                // It was that variable's block until now.
                self.variables.gives(number, block.size);
                self.variables.lived(number, block.size, time.saturating_sub(block.start), false);
            }
            if let Some(number) = new {
                self.variables.takes(number, block.size);
            }
        }
    }

    /// A block that had a name has lived so long.
    #[cold]
    pub fn lived(&mut self, id: u32, size: u64, lifetime: u64, lives: bool) {
        if let Some(number) = self.variables.of_id(id) {
            self.variables.lived(number, size, lifetime, lives);
        }
    }

    /// A block has ended, or, where the end is taken back, lives on.
    #[inline]
    pub fn ends(&mut self, block: &Block, again: bool) {
        if self.names.is_empty() {
            return;
        }
        let given = self.names.get(&(block.address, block.start));
        let Some(number) = given.and_then(|given| self.variables.of_id(given.id)) else { return };
        if again {
            self.variables.takes(number, block.size)
        } else {
            self.variables.gives(number, block.size)
        }
    }

    /// A `realloc` of a block begins, in this stream.
    #[inline]
    pub fn moves(&mut self, block: Option<&Block>, stream: u32) {
        if self.names.is_empty() {
            return;
        }
        match block.and_then(|block| self.names.get(&(block.address, block.start))) {
            Some(given) if given.held => self.moving.insert(stream, given.id),
            _ => self.moving.remove(&stream),
        };
    }

    /// A block starts: if it is the result of a `realloc`, it gets the old one's name.
    #[inline]
    pub fn starts(&mut self, block: &Block) {
        if self.moving.is_empty() {
            return;
        }
        if let Some(id) = self.moving.remove(&block.stream) {
            self.name(block, id, block.start, block.stream);
        }
    }

    /// A block's life is over, and so is its name's: the id, or 0.
    #[inline]
    pub fn take(&mut self, block: &Block, end: u64, end_stream: u32) -> u32 {
        if self.names.is_empty() {
            return 0;
        }
        match self.names.remove(&(block.address, block.start)) {
            Some(given) if end_stream == given.stream || end_stream == NO_STREAM => given.id,
            // Ended by another stream and just named: the block that was meant may be the next one.
            Some(given) if given.time + SKEW <= end => given.id,
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(address: u64, start: u64, stream: u32) -> Block {
        Block { address, start, stream, size: 32, ..Block::default() }
    }

    #[test]
    fn names_are_read_by_their_ids() {
        let mut names = Names::default();
        let record = |id, name: &str| {
            let name = record::Name { id, name: name.as_bytes(), type_name: b"T", scope: b"" };
            let mut words = vec![0; name.words()];
            name.encode(|at, word| words[at] = word);
            words
        };
        names.read(&record(7, "a"));
        names.read(&record(9, "b"));
        names.read(&record(8, "cut")[..2]);
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(names.get(9), Some(&Name { variable: text("b"), type_name: text("T"), scope: None }));
        assert_eq!((names.get(8), names.get(7).is_some()), (None, true));
    }

    #[test]
    fn names_follow_through_realloc_while_their_variable_is_there() {
        let mut named = NamedBlocks::default();
        let (old, new) = (block(16, 1, 0), block(32, 9, 0));
        named.name(&old, 3, 5, 0);
        named.moves(Some(&old), 0);
        let other = block(48, 8, 1);
        named.starts(&other);
        named.starts(&new);
        named.starts(&block(64, 10, 0));
        let taken = [old, other, new, block(64, 10, 0)].map(|block| named.take(&block, 20, 0));
        assert_eq!(taken, [3, 0, 3, 0]);
        assert_eq!(named.take(&new, 20, 0), 0);
        named.name(&new, 4, 30, 0);
        named.name(&new, 0, 31, 0);
        named.moves(Some(&new), 0);
        named.starts(&other);
        assert_eq!([named.take(&other, 40, 0), named.take(&new, 40, 0)], [0, 4]);
    }

    #[test]
    fn a_block_that_changes_its_name_counts_for_both() {
        let mut names = Names::default();
        for (id, name) in [(1, "first"), (2, "then")] {
            let name = record::Name { id, name: name.as_bytes(), type_name: b"T", scope: b"" };
            let mut words = vec![0; name.words()];
            name.encode(|at, word| words[at] = word);
            names.read(&words);
        }
        let mut named = NamedBlocks { variables: Variables::of(&names), ..NamedBlocks::default() };
        let kept = block(16, 1, 0);
        named.name(&kept, 1, 5, 0);
        named.name(&kept, 1, 6, 0);
        named.name(&kept, 2, 8, 0);
        named.ends(&kept, false);
        assert_eq!(named.take(&kept, 20, 0), 2);
        named.lived(2, kept.size, 19, false);
        let list = named.variables.list();
        let sums = list.iter().map(|v| (v.var_name.as_str(), v.allocations, v.allocated, v.peak_memory));
        assert_eq!(sums.collect::<Vec<_>>(), [("first", 1, 32, 32), ("then", 1, 32, 32)]);
    }

    #[test]
    fn what_the_clocks_leave_open_has_no_name() {
        let late = 100 * SKEW;
        let taken = |begun_by, start, named_by, ended_by, end| {
            let (mut named, block) = (NamedBlocks::default(), block(16, start, begun_by));
            named.name(&block, 3, late, named_by);
            named.take(&block, end, ended_by)
        };
        assert_eq!(taken(0, late - 1, 0, 0, late + 1), 3);
        assert_eq!(taken(0, late - 1, 0, 1, late + 1), 0);
        assert_eq!(taken(1, late - 1, 0, 0, late + 1), 0);
        assert_eq!(taken(1, 1, 0, 0, late + 1), 3);
        assert_eq!(taken(1, 1, 0, 1, late + 1), 0);
        assert_eq!(taken(1, 1, 0, 1, late + SKEW), 3);
        assert_eq!(taken(1, 1, 0, NO_STREAM, late), 3);
    }

    #[test]
    fn a_block_is_found_around_an_address() {
        let blocks = [block(64, 1, 0), block(128, 1, 0)];
        let at = |address| blocks.iter().find(|block| block.address == address);
        let mut named = NamedBlocks::default();
        let mut around = |address, reach| named.around(address, reach, at);
        assert_eq!(around(150, 64), Some(&blocks[1]));
        assert_eq!(around(159, 32), Some(&blocks[1]));
        assert_eq!(around(160, 64), None, "behind its end");
        assert_eq!(around(111, 16), None, "too far");
        assert_eq!(around(7, u64::MAX), None);
    }

    #[test]
    fn a_recording_cannot_cost_any_number_of_looks() {
        let mut named = NamedBlocks { looks: LOOKS - 100, ..NamedBlocks::default() };
        let looks = std::cell::Cell::new(0);
        let mut around = || {
            looks.set(0);
            let found = named.around(1 << 50, u64::MAX, |_| {
                looks.set(looks.get() + 1);
                None
            });
            (found, looks.get())
        };
        assert_eq!(around(), (None, 100 + EARNED + 1));
        assert_eq!(around(), (None, EARNED + 1));
        assert_eq!(around(), (None, EARNED + 1));
    }
}
