//! Hashing of numbers: addresses, node ids, program counters.
//!
//! They come from a trace, and whoever made that may have chosen them so that they collide. So each table has a
//! random [`Key`], which nobody could know when the trace was made. No result depends on it.

use std::hash::{BuildHasher, RandomState};

/// A random key, fresh for each table.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    offset: u64,
    /// Odd.
    factor: u64,
}

impl Default for Key {
    fn default() -> Self {
        let state = RandomState::new();
        Self { offset: state.hash_one(0), factor: state.hash_one(1) | 1 }
    }
}

impl Key {
    /// Spreads the bits of a number over a word: the product with the key's odd factor, folded, so that both the
    /// high and the low bits of the result depend on all of the number.
    #[inline]
    #[must_use]
    pub const fn hash(self, number: u64) -> u64 {
        let product = (number ^ self.offset) as u128 * self.factor as u128;
        (product >> 64) as u64 ^ product as u64
    }

    /// The same of a pair.
    #[inline]
    #[must_use]
    pub const fn pair(self, a: u64, b: u64) -> u64 {
        self.hash(self.hash(a) ^ b)
    }
}

/// For `HashMap`s with integer keys.
#[derive(Clone, Copy, Debug, Default)]
pub struct MixState(Key);

impl BuildHasher for MixState {
    type Hasher = MixHasher;

    fn build_hasher(&self) -> MixHasher {
        MixHasher { key: self.0, state: 0 }
    }
}

/// See [`MixState`].
#[derive(Clone, Copy, Debug)]
pub struct MixHasher {
    key: Key,
    state: u64,
}

impl std::hash::Hasher for MixHasher {
    fn finish(&self) -> u64 {
        self.state
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
        self.write_usize(bytes.len());
    }

    fn write_u32(&mut self, n: u32) {
        self.write_u64(u64::from(n));
    }

    fn write_u64(&mut self, n: u64) {
        self.state = self.key.hash(self.state ^ n);
    }

    fn write_usize(&mut self, n: usize) {
        self.write_u64(n as u64);
    }
}

/// A map with integer keys.
pub type Map<K, V> = hashbrown::HashMap<K, V, MixState>;

#[cfg(test)]
mod tests {
    use super::*;

    /// What the hash of an analysis without a key would make of a number.
    const PLAIN: Key = Key { offset: 0, factor: 0x9e37_79b9_7f4a_7c15 };

    #[test]
    fn each_key_is_another_one() {
        let keys: Vec<_> = (0..50).map(|_| Key::default()).collect();
        let mut hashes: Vec<_> = keys.iter().map(|key| key.hash(1 << 20)).collect();
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), keys.len());
    }

    #[test]
    fn numbers_that_collide_under_one_key_do_not_under_another() {
        let top = |key: Key, number| key.hash(number) >> 52;
        let chosen: Vec<u64> = (0..2_000_000).filter(|&number| top(PLAIN, number) == 77).collect();
        assert!(chosen.len() > 300, "{}", chosen.len());
        // Of 4,096 places, some hundreds of numbers at random take nearly as many as they are.
        let key = Key::default();
        let mut places: Vec<_> = chosen.iter().map(|&number| top(key, number)).collect();
        places.sort_unstable();
        places.dedup();
        assert!(places.len() * 2 > chosen.len(), "{} of {}", places.len(), chosen.len());
    }
}
