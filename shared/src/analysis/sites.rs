//! Sums of each site, that is, of each distinct stack.
//!
//! `memory_at_peak` costs nothing when the process reaches a new peak: that only begins a new epoch. A
//! site notes what it held when it changes for the first time in an epoch, because until then it held
//! what it held at the peak.
//!
//! A program may have a hundred thousand sites, and its events come from any of them in turn: each would wait for memory a
//! few times. So what happens is noted in a journal for each few hundred sites (a [`shard`]), in its order, and put down
//! when a journal is full: then these sites' sums are in the nearer caches all the while. Where all sites are in one
//! shard, starts and ends are put down at once.

mod shard;

use std::ops::RangeInclusive;

use self::shard::{Change, Lived, Shard, WIDTH, What};
use crate::model::SiteStats;

/// Entries that all journals hold together, roughly, of changes and of lifetimes each.
const ENTRIES: usize = 1 << 20;
/// Entries that one journal holds: some for each of its sites, so that most find what they need in the nearer caches.
const JOURNAL: RangeInclusive<usize> = WIDTH..=16 * WIDTH;
/// Lifetimes that the journal of the only shard holds.
const LIVES_NEAR: usize = 128;

/// What is to be put down in one shard.
#[derive(Debug, Default)]
struct Journal {
    changes: Vec<Change>,
    /// The epoch that the changes' epochs are counted from.
    since: u64,
    lives: Vec<Lived>,
}

/// All sites.
#[derive(Debug, Default)]
pub struct Sites {
    /// The first sites.
    near: Shard,
    /// The others.
    far: Vec<Shard>,
    /// One of each shard.
    journals: Vec<Journal>,
    /// From how many entries on a journal is put down.
    full: usize,
    /// Number of peaks of the process so far.
    epoch: u64,
}

/// Shard of a site, and its number in there.
#[inline(always)]
const fn place(site: u32) -> (usize, usize) {
    (site as usize / WIDTH, site as usize % WIDTH)
}

impl Sites {
    /// Adds a site; returns its index.
    pub fn add(&mut self) -> u32 {
        if self.journals.len() * WIDTH == self.len() {
            self.journals.push(Journal::default());
            self.full = (ENTRIES / self.journals.len()).clamp(*JOURNAL.start(), *JOURNAL.end());
            if self.near.len() == WIDTH {
                self.far.push(Shard::default());
            }
        }
        self.far.last_mut().unwrap_or(&mut self.near).add();
        self.len() as u32 - 1
    }

    /// Number of sites.
    #[must_use]
    pub fn len(&self) -> usize {
        match self.far.last() {
            Some(last) => self.far.len() * WIDTH + last.len(),
            None => self.near.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.near.len() == 0
    }

    /// A block of the site starts.
    #[inline]
    pub fn start(&mut self, site: u32, size: u64) {
        self.happens(site, What::Start, size);
    }

    /// A block of the site ends.
    #[inline]
    pub fn end(&mut self, site: u32, size: u64) {
        self.happens(site, What::End, size);
    }

    /// A block that had ended lives on.
    pub fn reopen(&mut self, site: u32, size: u64) {
        self.happens(site, What::Reopen, size);
    }

    /// The process has reached a new peak.
    #[inline]
    pub const fn peak(&mut self) {
        self.epoch += 1;
    }

    #[inline(always)]
    fn happens(&mut self, site: u32, what: What, size: u64) {
        if self.far.is_empty() {
            return self.near.happens(site as usize, what, self.epoch, size);
        }
        let (shard, site) = place(site);
        let journal = &mut self.journals[shard];
        if journal.changes.len() < self.full
            && let Some(change) = Change::new(site, what, self.epoch - journal.since, size)
        {
            journal.changes.push(change);
        } else {
            self.happens_now(shard, site, what, size);
        }
    }

    /// The journal is full, or has no words for what happens.
    #[inline(never)]
    fn happens_now(&mut self, shard: usize, site: usize, what: What, size: u64) {
        self.put_down(shard);
        let epoch = self.epoch;
        self.shard(shard).happens(site, what, epoch, size);
    }

    /// A life of the site is over.
    #[inline]
    pub fn lived(&mut self, site: u32, lifetime: u64) {
        let (shard, site) = place(site);
        let most = if self.far.is_empty() { LIVES_NEAR } else { self.full };
        let lives = &mut self.journals[shard].lives;
        if lives.len() < most
            && let Some(lived) = Lived::new(site, lifetime)
        {
            lives.push(lived);
        } else {
            self.lived_now(shard, site, lifetime);
        }
    }

    #[inline(never)]
    fn lived_now(&mut self, shard: usize, site: usize, lifetime: u64) {
        self.put_down(shard);
        self.shard(shard).lived(site, lifetime);
    }

    const fn shard(&mut self, shard: usize) -> &mut Shard {
        match shard.checked_sub(1) {
            Some(far) => &mut self.far.as_mut_slice()[far],
            None => &mut self.near,
        }
    }

    /// Puts down what a journal holds.
    fn put_down(&mut self, shard: usize) {
        let Journal { mut changes, since, mut lives } = std::mem::take(&mut self.journals[shard]);
        let sums = self.shard(shard);
        sums.change(&changes, since);
        sums.live(&lives);
        changes.clear();
        lives.clear();
        self.journals[shard] = Journal { changes, since: self.epoch, lives };
    }

    /// Puts everything down that has not been yet.
    pub fn settle(&mut self) {
        (0..self.journals.len()).for_each(|shard| self.put_down(shard));
    }

    /// The sums of a site, after [`Sites::settle`]. The mean lifetime is that of all its allocations.
    #[must_use]
    pub fn stats(&self, site: u32) -> SiteStats {
        let (shard, site) = place(site);
        let shard = shard.checked_sub(1).map_or(&self.near, |far| &self.far[far]);
        shard.stats(site, self.epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Rng;
    use super::*;

    #[test]
    fn memory_at_peak_is_that_of_the_peak() {
        peaks_of(8, 5_000);
        // Some of these events come when all sites are in one shard.
        peaks_of(WIDTH as u64 * 5 / 2, 60_000);
    }

    fn peaks_of(count: u64, events: u64) {
        let mut random = Rng::new(9);
        let mut sites = Sites::default();
        let none = vec![0u64; count as usize];
        let (mut held, mut at_peak, mut peaks, mut counts) = (none.clone(), none.clone(), none.clone(), none);
        let (mut peak, mut blocks) = (0, Vec::new());
        for event in 0..events {
            let known = (event * 4 + 8).min(count);
            while (sites.len() as u64) < known {
                sites.add();
            }
            if random.below(2) == 0 || blocks.is_empty() {
                let (site, size) = (random.below(known) as u32, random.below(100));
                counts[site as usize] += 1;
                sites.start(site, size);
                blocks.push((site, size));
                held[site as usize] += size;
                peaks[site as usize] = peaks[site as usize].max(held[site as usize]);
                if held.iter().sum::<u64>() > peak {
                    peak = held.iter().sum();
                    at_peak.clone_from(&held);
                    sites.peak();
                }
            } else {
                let (site, size) = blocks.swap_remove(random.below(blocks.len() as u64) as usize);
                sites.end(site, size);
                if random.below(8) == 0 {
                    sites.reopen(site, size);
                    sites.end(site, size);
                }
                held[site as usize] -= size;
            }
        }
        sites.settle();
        for site in 0..count as usize {
            let stats = sites.stats(site as u32);
            assert_eq!(stats.allocations, counts[site]);
            assert_eq!(stats.memory_at_peak, at_peak[site]);
            assert_eq!(stats.active_memory, held[site]);
            assert_eq!(stats.peak_memory, peaks[site]);
        }
        assert_eq!((0..count).map(|site| sites.stats(site as u32).memory_at_peak).sum::<u64>(), peak);
    }

    #[test]
    fn lifetimes_are_summed_up() {
        let mut sites = Sites::default();
        let site = sites.add();
        for lifetime in 1..=1_000 {
            sites.start(site, 1);
            sites.lived(site, lifetime * 2_000);
        }
        sites.settle();
        let stats = sites.stats(site);
        assert_eq!((stats.lifetime_ns.min, stats.lifetime_ns.max), (2_000, 2_000_000));
        assert_eq!(stats.lifetime_ns.mean, 1_001_000);
        assert!(stats.lifetime_ns.p50.abs_diff(1_000_000) <= 50_000);
        assert!(stats.lifetime_ns.p99.abs_diff(1_980_000) <= 99_000);
        assert_eq!(stats.short_lived, 499);
        let empty = sites.add();
        assert_eq!(sites.stats(empty), SiteStats::default());
    }
}
