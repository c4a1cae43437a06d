//! Hashing of numbers: addresses, node ids, program counters.

/// Spreads the bits of a pair of numbers over a word: the product with an odd constant, folded, so
/// that both the high and the low bits of the result depend on all of the input.
#[inline]
#[must_use]
pub fn mix(a: u64, b: u64) -> u64 {
    let x = (a ^ b.rotate_left(32)).wrapping_add(0x9e37_79b9_7f4a_7c15);
    let product = u128::from(x) * 0xda94_2042_e4dd_58b5_u128;
    (product >> 64) as u64 ^ product as u64
}

/// For `HashMap`s with integer keys that need no defence: what is looked up is bounded by the input.
#[derive(Clone, Copy, Debug, Default)]
pub struct MixState;

impl std::hash::BuildHasher for MixState {
    type Hasher = MixHasher;

    fn build_hasher(&self) -> MixHasher {
        MixHasher(0)
    }
}

/// See [`MixState`].
#[derive(Clone, Copy, Debug)]
pub struct MixHasher(u64);

impl std::hash::Hasher for MixHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = mix(self.0, u64::from(byte));
        }
    }

    fn write_u32(&mut self, n: u32) {
        self.0 = mix(self.0, u64::from(n));
    }

    fn write_u64(&mut self, n: u64) {
        self.0 = mix(self.0, n);
    }

    fn write_usize(&mut self, n: usize) {
        self.0 = mix(self.0, n as u64);
    }
}

/// A map with integer keys.
pub type Map<K, V> = hashbrown::HashMap<K, V, MixState>;
