//! Whose a stream is, and since when: a thread that comes after another one has gone may continue that
//! one's stream.

use std::collections::BTreeSet;

use crate::record::operand;
use crate::trace::Clock;

/// The threads that each stream belonged to, in order.
#[derive(Debug, Default)]
pub struct Owners(Vec<Vec<(u64, u32)>>);

impl Owners {
    /// Streams that begin with these threads.
    pub fn new(first: impl Iterator<Item = u32>) -> Self {
        Self(first.map(|thread| vec![(0, thread)]).collect())
    }

    /// Takes a `THREAD_START` record of a stream. Records of one stream come in its order.
    pub fn started(&mut self, stream: usize, record: &[u64]) {
        let (thread, stamp) = ((operand(record[0]) >> 32) as u32, record[1]);
        let Some(owners) = self.0.get_mut(stream) else { return };
        match owners.as_mut_slice() {
            // What the first record says goes for the whole stream up to the next.
            [(since @ 0, owner)] => (*since, *owner) = (1, thread),
            [.., (_, owner)] if *owner == thread => {}
            _ => owners.push((stamp, thread)),
        }
    }

    /// The same with times instead of stamps.
    #[must_use]
    pub fn timed(mut self, clock: &Clock) -> Self {
        for (since, _) in self.0.iter_mut().flat_map(|owners| owners.iter_mut().skip(1)) {
            *since = clock.ns(*since);
        }
        self
    }

    /// The thread that a stream belonged to at a time.
    #[inline]
    #[must_use]
    pub fn at(&self, stream: u32, time: u64) -> u32 {
        match self.0.get(stream as usize).map(Vec::as_slice) {
            None | Some([]) => 0,
            Some([(_, thread)]) => *thread,
            Some(owners) => owners[owners[1..].partition_point(|&(since, _)| since <= time)].1,
        }
    }

    /// When a stream next changes hands after `time`; `u64::MAX` if it never does.
    #[must_use]
    pub fn change_after(&self, stream: u32, time: u64) -> u64 {
        let owners = self.0.get(stream as usize).map_or(&[][..], Vec::as_slice);
        let next = owners.iter().skip(1).find(|&&(since, _)| since > time);
        next.map_or(u64::MAX, |&(since, _)| since)
    }
}

/// Which threads have had events.
#[derive(Debug)]
pub struct Used {
    /// Of each stream, until when the thread that is marked has it.
    until: Vec<u64>,
    threads: BTreeSet<u32>,
}

impl Used {
    /// None of the threads of this many streams.
    #[must_use]
    pub fn new(streams: usize) -> Self {
        Self { until: vec![0; streams], threads: BTreeSet::new() }
    }

    /// A stream has an event.
    #[inline]
    pub fn mark(&mut self, owners: &Owners, stream: u32, time: u64) {
        if time >= self.until[stream as usize] {
            self.threads.insert(owners.at(stream, time));
            self.until[stream as usize] = owners.change_after(stream, time);
        }
    }

    /// Whether a thread has had an event.
    #[must_use]
    pub fn contains(&self, thread: u32) -> bool {
        self.threads.contains(&thread)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{head, kind, thread_operand};

    #[test]
    fn a_stream_is_continued_by_another_thread() {
        let start = |thread, stamp| [head(kind::THREAD_START, thread_operand(thread, 9)), stamp, 0, 0];
        let mut owners = Owners::new([7, 2].into_iter());
        owners.started(0, &start(1, 50));
        owners.started(0, &start(1, 60));
        owners.started(0, &start(3, 100));
        owners.started(0, &start(4, 200));
        assert_eq!(owners.at(0, 0), 1);
        assert_eq!(owners.at(0, 99), 1);
        assert_eq!(owners.at(0, 100), 3);
        assert_eq!(owners.at(0, 199), 3);
        assert_eq!(owners.at(0, 1000), 4);
        assert_eq!(owners.at(1, 5), 2);
        assert_eq!(owners.at(2, 5), 0);
        let mut used = Used::new(2);
        for (stream, time) in [(0, 10), (0, 20), (0, 200), (0, 250), (1, 5)] {
            used.mark(&owners, stream, time);
        }
        assert_eq!((1..5).filter(|&thread| used.contains(thread)).collect::<Vec<_>>(), [1, 2, 4]);
    }
}
