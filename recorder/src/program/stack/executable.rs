//! Which memory outside of all modules is executable: code that a program has made itself.
//!
//! A small table of ranges from `/proc/self/maps`; on a miss the file is read again. What is remembered may be
//! out of date; it only decides whether a *guessed* return address is plausible.

use super::maps;
use core::sync::atomic::{AtomicUsize, Ordering};

const RANGES: usize = 32;

struct Range {
    start: AtomicUsize,
    end: AtomicUsize,
}

static TABLE: [Range; RANGES] =
    [const { Range { start: AtomicUsize::new(0), end: AtomicUsize::new(0) } }; RANGES];
static TURN: AtomicUsize = AtomicUsize::new(0);

/// True where `address` lies in executable memory.
#[cold]
#[must_use]
pub fn contains(address: usize) -> bool {
    TABLE.iter().any(|range| range.contains(address)) || look(address)
}

impl Range {
    /// A torn pair is noticed: `end` is 0 while the entry changes.
    fn contains(&self, address: usize) -> bool {
        let end = self.end.load(Ordering::Acquire);
        let start = self.start.load(Ordering::Acquire);
        (start..end).contains(&address) && self.end.load(Ordering::Relaxed) == end
    }
}

fn look(address: usize) -> bool {
    let mut found = false;
    maps::visit(|mapping| {
        if (mapping.start..mapping.end).contains(&address) && mapping.executable {
            found = true;
            let turn = TURN.fetch_add(1, Ordering::Relaxed) % RANGES;
            if let Some(range) = TABLE.get(turn) {
                range.end.store(0, Ordering::Release);
                range.start.store(mapping.start, Ordering::Release);
                range.end.store(mapping.end, Ordering::Release);
            }
        }
        mapping.end <= address
    });
    found
}
