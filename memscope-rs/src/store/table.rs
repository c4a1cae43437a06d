//! A table that grows without ever moving what it holds.
//!
//! Entries lie in rows, each twice as long as the one before, so an index leads to its entry by two
//! loads, and a reference to an entry stays good for as long as the table does. Adding takes no lock: an index is
//! claimed by one atomic addition, and its entry is set once.
//!
//! ```text
//! row 0: entries 0 to 31 | row 1: 32 to 95 | row 2: 96 to 223 | ...
//! ```

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Entries of the first row, as a power of two.
const FIRST_BITS: u32 = 5;
/// Rows that an index of 32 bits can ask for.
const ROWS: usize = 28;

type Row<T> = Box<[OnceLock<T>]>;

/// The table.
#[derive(Debug)]
pub struct Table<T> {
    rows: [OnceLock<Row<T>>; ROWS],
    claimed: AtomicU32,
}

/// Row and place in it.
const fn place(index: u32) -> (usize, usize) {
    let shifted = index as u64 + (1 << FIRST_BITS);
    let row = shifted.ilog2() - FIRST_BITS;
    (row as usize, (shifted - (1 << (row + FIRST_BITS))) as usize)
}

impl<T> Table<T> {
    /// An empty table, which has allocated nothing.
    pub const fn new() -> Self {
        Self { rows: [const { OnceLock::new() }; ROWS], claimed: AtomicU32::new(0) }
    }

    /// The entry at an index; `None` where there is none, or not yet.
    #[inline]
    pub fn get(&self, index: u32) -> Option<&T> {
        let (row, at) = place(index);
        self.rows.get(row)?.get()?.get(at)?.get()
    }

    /// Adds an entry and returns its index.
    pub fn push(&self, entry: T) -> u32 {
        let index = self.claimed.fetch_add(1, Ordering::Relaxed);
        let (row, at) = place(index);
        let slot = self.row(row).and_then(|row| row.get(at));
        // The index is ours alone, so the entry cannot have been set.
        slot.map(|slot| slot.set(entry));
        index
    }

    /// The row, made where it is missing. It is made before it is set: making it allocates, and the
    /// program's allocator may come back here.
    fn row(&self, row: usize) -> Option<&Row<T>> {
        let cell = self.rows.get(row)?;
        if cell.get().is_none() {
            let fresh: Row<T> = (0..1_usize << (row as u32 + FIRST_BITS)).map(|_| OnceLock::new()).collect();
            let _another_thread_was_first = cell.set(fresh);
        }
        cell.get()
    }

    /// All entries, with their indices.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        let claimed = self.claimed.load(Ordering::Acquire);
        (0..claimed).filter_map(|index| Some((index, self.get(index)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_index_has_one_place() {
        let mut expected = (0, 0);
        for index in 0..100_000 {
            assert_eq!(place(index), expected);
            expected.1 += 1;
            if expected.1 == 1 << (expected.0 as u32 + FIRST_BITS) {
                expected = (expected.0 + 1, 0);
            }
        }
        assert!(place(u32::MAX).0 < ROWS);
    }

    #[test]
    fn threads_add_side_by_side() {
        let table = Table::new();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let table = &table;
                scope.spawn(move || {
                    for n in 0..1_000 {
                        let index = table.push((thread, n));
                        assert_eq!(table.get(index), Some(&(thread, n)));
                    }
                });
            }
        });
        let mut all: Vec<_> = table.iter().map(|(_, entry)| *entry).collect();
        all.sort_unstable();
        let expected: Vec<_> = (0..4).flat_map(|thread| (0..1_000).map(move |n| (thread, n))).collect();
        assert_eq!(all, expected);
        assert_eq!(table.get(4_000), None);
        assert_eq!(table.get(u32::MAX), None);
    }
}
