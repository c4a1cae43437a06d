//! What the tests of several modules share.

use super::source::MemorySource;
use crate::record::{head, kind};

/// Random numbers that are the same in each run (splitmix64).
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// Words of a stream, record by record.
#[derive(Clone, Debug, Default)]
pub struct Words(pub Vec<u64>);

impl Words {
    pub fn new() -> Self {
        Self::default()
    }

    fn put(mut self, kind: u8, operand: u64, words: &[u64]) -> Self {
        self.0.push(head(kind, operand));
        self.0.extend_from_slice(words);
        self
    }

    fn sized(self, small: u8, large: u8, address: u64, stamp: u64, stack: u32, size: u64) -> Self {
        let stack = u64::from(stack) << 32;
        if size < 1 << 32 {
            self.put(small, address, &[stamp, stack | size])
        } else {
            self.put(large, address, &[stamp, stack, size])
        }
    }

    pub fn alloc(self, address: u64, stamp: u64, stack: u32, size: u64) -> Self {
        self.sized(kind::ALLOC, kind::ALLOC_LARGE, address, stamp, stack, size)
    }

    pub fn moved(self, address: u64, stamp: u64, stack: u32, size: u64) -> Self {
        self.sized(kind::REALLOC_MOVED, kind::REALLOC_MOVED_LARGE, address, stamp, stack, size)
    }

    pub fn free(self, address: u64, stamp: u64) -> Self {
        self.put(kind::FREE, address, &[stamp])
    }

    pub fn begin(self, address: u64, stamp: u64) -> Self {
        self.put(kind::REALLOC_BEGIN, address, &[stamp])
    }

    pub fn freed(self, address: u64, stamp: u64) -> Self {
        self.put(kind::REALLOC_FREED, address, &[stamp])
    }

    pub fn realloc_failed(self, address: u64, stamp: u64) -> Self {
        self.put(kind::REALLOC_FAILED, address, &[stamp])
    }

    pub fn failed(self, stamp: u64) -> Self {
        self.put(kind::FAILED, 0, &[stamp])
    }

    pub fn node(self, kind: u8, pc: u64, id: u32, parent: u32) -> Self {
        self.put(kind, pc, &[u64::from(id) << 32 | u64::from(parent)])
    }
}

/// A source with these streams, each of one block and with its index + 1 as its thread.
pub fn source(streams: &[Words]) -> MemorySource {
    let mut source = MemorySource::new();
    for (at, words) in streams.iter().enumerate() {
        source.push(at as u32 + 1, &[&words.0]);
    }
    source
}
