//! Where threads take fresh slots from: a few cursors, so that threads seldom meet at one.
//!
//! ```text
//! cursor: chunk << 32 | next slot in it
//! ```
//!
//! A slot is taken by adding 1 to the cursor. Who takes the slot [`AHEAD`] before the end makes the next chunk, while others,
//! and the program's allocator if it tracks what it allocates for us just then, take the slots that are left.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use std::sync::atomic::{AtomicU32, AtomicU64};

/// Slots of a chunk, as a power of two.
pub const CHUNK_BITS: u32 = 10;
/// Slots of a chunk.
pub const CHUNK: u32 = 1 << CHUNK_BITS;
/// How many slots before the end the next chunk is made.
const AHEAD: u32 = 64;

/// The cursor; on a cache line of its own.
#[derive(Debug)]
#[repr(align(64))]
pub struct Shard {
    cursor: AtomicU64,
    /// A chunk that waits to be used; 0 for none.
    spare: AtomicU32,
}

/// What a shard answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// The slot of this number.
    Slot(u32),
    /// The slot of this number, and the caller is to give a new chunk to [`Shard::add`].
    SlotAndLow(u32),
    /// None is left: a new chunk is to be given to [`Shard::add`].
    Empty,
}

impl Shard {
    /// A shard without a chunk.
    pub const fn new() -> Self {
        Self { cursor: AtomicU64::new(0), spare: AtomicU32::new(0) }
    }

    /// Takes a slot.
    #[inline]
    pub fn take(&self) -> Taken {
        let cursor = self.cursor.fetch_add(1, AcqRel);
        let (chunk, at) = ((cursor >> 32) as u32, cursor as u32);
        if chunk == 0 || at >= CHUNK {
            return Taken::Empty;
        }
        let number = chunk << CHUNK_BITS | at;
        if at == CHUNK - AHEAD { Taken::SlotAndLow(number) } else { Taken::Slot(number) }
    }

    /// Goes on with the chunk that waits; false where none does.
    pub fn use_spare(&self) -> bool {
        match self.spare.swap(0, AcqRel) {
            0 => false,
            chunk => {
                self.add(chunk);
                true
            }
        }
    }

    /// Gives the shard a chunk (never number 0): to be used now if it has run out, else later.
    pub fn add(&self, chunk: u32) {
        let mut seen = self.cursor.load(Acquire);
        loop {
            if seen >> 32 != 0 && (seen as u32) < CHUNK {
                // Where one waits already, another thread has made it in the same moment; this one stays unused.
                let _ = self.spare.compare_exchange(0, chunk, AcqRel, Relaxed);
                return;
            }
            match self.cursor.compare_exchange_weak(seen, u64::from(chunk) << 32, AcqRel, Acquire) {
                Ok(_) => return,
                Err(now) => seen = now,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_slot_is_taken_once() {
        let shard = Shard::new();
        assert_eq!(shard.take(), Taken::Empty);
        shard.add(1);
        let mut taken = Vec::new();
        for _ in 0..CHUNK {
            match shard.take() {
                Taken::Slot(number) => taken.push(number),
                Taken::SlotAndLow(number) => {
                    taken.push(number);
                    shard.add(2);
                }
                Taken::Empty => panic!("a slot is missing"),
            }
        }
        assert!(taken.into_iter().eq(CHUNK..2 * CHUNK));
        assert_eq!(shard.take(), Taken::Empty);
        assert!(shard.use_spare() && !shard.use_spare());
        assert_eq!(shard.take(), Taken::Slot(2 * CHUNK));
    }
}
