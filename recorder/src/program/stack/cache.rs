//! Unwind rules by pc: one global table, without locks.
//!
//! 2^16 words, direct-mapped. An entry is one `u64`, so it can't be torn, and a reader needs nothing but one relaxed
//! load: an entry says itself which pc it is for. The low 16 bits of the pc, mixed with the next 16, make the index;
//! all but the low 16 are the tag. That is a bijection, so index and tag name the pc exactly. Neighbouring pcs share
//! pages of the table: a short program touches few of them.
//!
//! ```text
//! index = pc[15:0] ^ pc[31:16]         entry = pc[46:16] << 33 | generation[6:0] << 26 | rule
//! ```
//!
//! An entry is valid in one generation of modules only. The table is emptied when one ends; the 7 bits in the entry
//! catch the thread that worked out a rule before and stores it after. User space ends at 2^47, so every tag fits;
//! code begins above 64 KiB, so no tag is 0 and an empty entry is nobody's.

use super::rule::{self, Rule};
use core::sync::atomic::{AtomicU64, Ordering};

const INDEX_BITS: u32 = 16;
const TAG_SHIFT: u32 = 33;
const GENERATION_MASK: u64 = (1 << (TAG_SHIFT - rule::BITS)) - 1;
/// First address that can be code.
const USER_START: usize = 1 << INDEX_BITS;
/// First address that is not user space.
const USER_END: usize = 1 << 47;

const _: () = assert!(TAG_SHIFT + 47 - INDEX_BITS == 64);

/// Whether an address can be one of code that there are rules for.
#[inline(always)]
#[must_use]
pub const fn can_be_code(address: usize) -> bool {
    address.wrapping_sub(USER_START) < USER_END - USER_START
}

/// A table of rules.
pub struct Cache([AtomicU64; 1 << INDEX_BITS]);

/// The process's rules.
pub static CACHE: Cache = Cache::new();

#[inline(always)]
const fn index(address: usize) -> usize {
    (address ^ address >> INDEX_BITS) & ((1 << INDEX_BITS) - 1)
}

/// A generation as it stands in entries, worked out once for many look-ups.
#[derive(Clone, Copy, Debug)]
pub struct Valid(u64);

impl Valid {
    /// Entries of this generation.
    #[inline(always)]
    #[must_use]
    pub const fn of(generation: u32) -> Self {
        Self((generation as u64 & GENERATION_MASK) << rule::BITS)
    }
}

#[inline(always)]
const fn tag(address: usize) -> u64 {
    (address as u64 >> INDEX_BITS) << TAG_SHIFT
}

impl Cache {
    const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; 1 << INDEX_BITS])
    }

    #[inline(always)]
    fn slot(&self, address: usize) -> &AtomicU64 {
        // SAFETY: an index is below the table's length.
        unsafe { self.0.get_unchecked(index(address)) }
    }

    /// The rule for `address`, if it is here.
    #[inline(always)]
    #[must_use]
    pub fn get(&self, address: usize, generation: u32) -> Option<Rule> {
        self.get_valid(address, Valid::of(generation))
    }

    /// The same.
    #[inline(always)]
    #[must_use]
    pub fn get_valid(&self, address: usize, valid: Valid) -> Option<Rule> {
        if !can_be_code(address) {
            return Some(Rule::plain(rule::Kind::NotCode));
        }
        let entry = self.slot(address).load(Ordering::Relaxed);
        let rule = entry ^ tag(address) ^ valid.0;
        // Anything left above the rule's bits says that the entry is another pc's or generation's, or empty.
        if rule >> rule::BITS == 0 { Some(Rule::from_bits(rule as u32)) } else { None }
    }

    /// Keeps a rule.
    pub fn put(&self, address: usize, generation: u32, rule: Rule) {
        if can_be_code(address) {
            let entry = tag(address) | Valid::of(generation).0 | u64::from(rule.bits());
            self.slot(address).store(entry, Ordering::Relaxed);
        }
    }

    /// Forgets everything. Pages that were never used stay untouched.
    pub fn clear(&self) {
        for entry in &self.0 {
            if entry.load(Ordering::Relaxed) != 0 {
                entry.store(0, Ordering::Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::stack::rule::Kind;

    #[test]
    fn entries_are_found_by_exactly_their_pc() {
        static TABLE: Cache = Cache::new();
        let generation = 93;
        let at = |i: usize| 0x7f12_3456_0000 + i * 7;
        for i in 0..1000 {
            TABLE.put(at(i), generation, Rule::plain(if i % 2 == 0 { Kind::End } else { Kind::Slow }));
        }
        for i in 0..1000 {
            let kind = if i % 2 == 0 { Kind::End } else { Kind::Slow };
            assert_eq!(TABLE.get(at(i), generation).map(Rule::kind), Some(kind));
            assert_eq!(TABLE.get(at(i), generation + 1), None);
            assert_eq!(TABLE.get(at(i) + (1 << 36), generation), None);
        }
        for address in [usize::MAX, USER_END, USER_START - 1, 0] {
            assert_eq!(TABLE.get(address, generation).map(Rule::kind), Some(Kind::NotCode));
        }
        TABLE.clear();
        assert_eq!(TABLE.get(at(5), generation), None);
    }

    #[test]
    fn index_and_tag_name_the_pc() {
        // Two addresses with the same tag never share a slot.
        let mut seen = vec![false; 1 << INDEX_BITS];
        for low in 0..1_usize << INDEX_BITS {
            assert!(!core::mem::replace(&mut seen[index(0x5555_4321_0000 | low)], true));
        }
    }
}
