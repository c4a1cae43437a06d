//! Values that are kept once each and known by their number, found without a lock.
//!
//! A hash table of chains over a [`Table`]. Values are added at the head of their chain and never taken out. So who
//! finds the head unchanged after a search in vain, and exchanges it, has added the only one.

use super::table::Table;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};

/// Number of chains.
const CHAINS: usize = 1024;

/// The values. Numbers start at 1; 0 is free for "none".
#[derive(Debug)]
pub struct Interner<T> {
    entries: Table<Entry<T>>,
    heads: [AtomicU32; CHAINS],
}

#[derive(Debug)]
struct Entry<T> {
    value: T,
    hash: u64,
    next: AtomicU32,
}

impl<T> Interner<T> {
    /// Without values.
    pub const fn new() -> Self {
        Self { entries: Table::new(), heads: [const { AtomicU32::new(0) }; CHAINS] }
    }

    /// The value of a number.
    #[inline]
    pub fn get(&self, number: u32) -> Option<&T> {
        self.entry(number).map(|entry| &entry.value)
    }

    #[inline]
    fn entry(&self, number: u32) -> Option<&Entry<T>> {
        self.entries.get(number.checked_sub(1)?)
    }

    fn search(&self, first: u32, hash: u64, same: &impl Fn(&T) -> bool) -> Option<u32> {
        let mut number = first;
        while let Some(entry) = self.entry(number) {
            if entry.hash == hash && same(&entry.value) {
                return Some(number);
            }
            number = entry.next.load(Relaxed);
        }
        None
    }

    /// The number of the value that is the `same`, if there is one.
    #[inline]
    pub fn find(&self, hash: u64, same: impl Fn(&T) -> bool) -> Option<u32> {
        self.search(self.heads[hash as usize % CHAINS].load(Acquire), hash, &same)
    }

    /// The number of the value that is the `same`, made where it is missing. Making it allocates.
    pub fn intern(&self, hash: u64, same: impl Fn(&T) -> bool, make: impl FnOnce() -> T) -> u32 {
        let head = &self.heads[hash as usize % CHAINS];
        let mut first = head.load(Acquire);
        if let Some(number) = self.search(first, hash, &same) {
            return number;
        }
        let number = self.entries.push(Entry { value: make(), hash, next: AtomicU32::new(first) }) + 1;
        loop {
            match head.compare_exchange(first, number, AcqRel, Acquire) {
                Ok(_) => return number,
                Err(now) => first = now,
            }
            // Another thread may have added the same one; ours then stays unknown.
            if let Some(number) = self.search(first, hash, &same) {
                return number;
            }
            self.entry(number).into_iter().for_each(|entry| entry.next.store(first, Relaxed));
        }
    }
}

/// Hash of a few words.
#[inline]
pub fn hash_words(words: impl IntoIterator<Item = u64>) -> u64 {
    let mix = |hash: u64, word: u64| (hash.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let hash = words.into_iter().fold(0x243f_6a88_85a3_08d3, mix);
    hash ^ hash >> 32
}

/// Hash of a text.
pub fn hash_text(text: &str) -> u64 {
    hash_words(text.as_bytes().chunks(8).map(|bytes| {
        let mut word = [0; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        u64::from_le_bytes(word) ^ (bytes.len() as u64) << 56
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_has_one_number() {
        let interner = Interner::<String>::new();
        let text = |n: usize| format!("value {}", n % 500);
        let numbers: Vec<Vec<u32>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        let intern = |n| {
                            let text = text(n);
                            interner.intern(hash_text(&text), |known| *known == text, || text.clone())
                        };
                        (0..1_000).map(intern).collect()
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        for numbers in &numbers {
            assert_eq!(numbers, &found(&interner, &text));
        }
        assert_eq!(interner.find(hash_text("nothing"), |_| true), None);
        assert_eq!(interner.get(0), None);
    }

    fn found(interner: &Interner<String>, text: &impl Fn(usize) -> String) -> Vec<u32> {
        let find = |n| {
            let text = text(n);
            let number = interner.find(hash_text(&text), |known| *known == text).unwrap();
            assert_eq!(interner.get(number), Some(&text));
            number
        };
        (0..1_000).map(find).collect()
    }
}
