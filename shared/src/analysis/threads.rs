//! Threads: their names, and when they were there.

use super::hash::Map;
use crate::record::operand;

/// One thread; times are stamps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Thread {
    /// Its number.
    pub number: u32,
    /// The kernel's id, 0 where it is not known.
    pub tid: u32,
    /// The last name that it had. Any bytes; empty where it had none.
    pub name: Vec<u8>,
    /// When it was first seen.
    pub start: u64,
    /// Its end, where it was seen.
    pub end: Option<u64>,
    /// When it was given its name.
    named: u64,
}

/// All threads by number.
#[derive(Debug, Default)]
pub struct Threads(Map<u32, Thread>);

impl Threads {
    /// A stream of the thread has a record with this stamp.
    pub fn seen(&mut self, number: u32, stamp: u64) -> &mut Thread {
        let thread =
            self.0.entry(number).or_insert_with(|| Thread { number, start: stamp, ..Thread::default() });
        thread.start = thread.start.min(stamp);
        thread
    }

    /// Takes a `THREAD_START` record.
    pub fn started(&mut self, record: &[u64]) {
        let (stamp, name) = (record[1], &record[2..]);
        let thread = self.seen((operand(record[0]) >> 32) as u32, stamp);
        thread.tid = operand(record[0]) as u32;
        thread.rename(stamp, &bytes_of(name));
    }

    /// Takes a `THREAD_END` record.
    pub fn ended(&mut self, record: &[u64]) {
        self.started(record);
        if let Some(thread) = self.0.get_mut(&((operand(record[0]) >> 32) as u32)) {
            thread.end = Some(thread.end.map_or(record[1], |end| end.max(record[1])));
        }
    }

    /// A thread that was seen got a name.
    pub fn named(&mut self, number: u32, stamp: u64, name: &[u8]) {
        if let Some(thread) = self.0.get_mut(&number) {
            thread.rename(stamp, name);
        }
    }

    /// Those that `wanted` names, by number.
    #[must_use]
    pub fn list(&self, wanted: impl Fn(u32) -> bool) -> Vec<Thread> {
        let mut list: Vec<_> = self.0.values().filter(|thread| wanted(thread.number)).cloned().collect();
        list.sort_unstable_by_key(|thread| thread.number);
        list
    }
}

impl Thread {
    fn rename(&mut self, stamp: u64, name: &[u8]) {
        if !name.is_empty() && (self.name.is_empty() || stamp >= self.named) {
            self.name = name.to_vec();
            self.named = stamp;
        }
    }
}

/// The bytes of zero-padded words.
fn bytes_of(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).take_while(|&byte| byte != 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{head, kind, thread_operand};

    fn record(kind: u8, number: u32, stamp: u64, name: &[u8; 16]) -> [u64; 4] {
        let word = |at: usize| u64::from_le_bytes(name[at..at + 8].try_into().unwrap());
        [head(kind, thread_operand(number, 100 + number)), stamp, word(0), word(8)]
    }

    #[test]
    fn the_last_name_stays() {
        let mut threads = Threads::default();
        threads.started(&record(kind::THREAD_START, 2, 10, b"first\0\0\0\0\0\0\0\0\0\0\0"));
        threads.named(2, 20, b"second");
        threads.named(2, 15, b"late news");
        threads.named(2, 30, b"");
        threads.named(9, 30, b"never seen");
        let list = threads.list(|_| true);
        assert_eq!(list.len(), 1);
        assert_eq!((list[0].number, list[0].tid, list[0].start, list[0].end), (2, 102, 10, None));
        assert_eq!(list[0].name, b"second");
        threads.ended(&record(kind::THREAD_END, 2, 40, b"sixteen letters!"));
        threads.seen(2, 5);
        threads.seen(1, 50);
        let list = threads.list(|_| true);
        assert_eq!(list.iter().map(|t| t.number).collect::<Vec<_>>(), [1, 2]);
        assert_eq!((list[1].start, list[1].end), (5, Some(40)));
        assert_eq!(list[1].name, b"sixteen letters!");
        assert_eq!(threads.list(|number| number == 1).len(), 1);
    }
}
