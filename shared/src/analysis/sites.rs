//! Sums of each site, that is, of each distinct stack.
//!
//! `memory_at_peak` costs nothing when the process reaches a new peak: that only begins a new epoch. A
//! site notes what it held when it changes for the first time in an epoch, because until then it held
//! what it held at the peak.
//!
//! Lifetimes are put down in batches: a short loop that only looks at what they need comes first, so that the
//! processor fetches it for many of them at once.

use std::hint::black_box;

use super::histogram::{Few, Histograms};
use crate::model::{Lifetimes, SiteStats};

/// Lifetimes that are put down at once.
const BATCH: usize = 128;
/// Sites that the nearest cache holds: 64 bytes each.
const NEAR: usize = 256;
/// What lives shorter is short-lived, in ns.
const SHORT: u64 = 1_000_000;

/// What every event of a site changes: one cache line.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(64))]
struct Counts {
    allocations: u64,
    allocated: u64,
    deallocations: u64,
    deallocated: u64,
    peak: u64,
    /// Live bytes at the peak before `epoch`.
    at_peak: u64,
    /// The epoch of the last change.
    epoch: u64,
}

impl Counts {
    const fn live(&self) -> u64 {
        self.allocated.wrapping_sub(self.deallocated)
    }

    /// Notes what was held at the last peak, if that has not been done.
    #[inline]
    const fn enter(&mut self, epoch: u64) {
        if self.epoch != epoch {
            self.at_peak = self.live();
            self.epoch = epoch;
        }
    }
}

/// What every end of a life changes: a cache line too.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Lives {
    sum: u128,
    min: u64,
    max: u64,
    short: u64,
    few: Few,
}

const _: () = assert!(size_of::<Counts>() == 64 && size_of::<Lives>() == 64);

impl Default for Lives {
    fn default() -> Self {
        Self { sum: 0, min: u64::MAX, max: 0, short: 0, few: Few::default() }
    }
}

/// All sites.
#[derive(Debug, Default)]
pub struct Sites {
    counts: Vec<Counts>,
    lives: Vec<Lives>,
    histograms: Histograms,
    /// Sites and lifetimes that were not put down yet.
    batch: Vec<(u32, u64)>,
    /// Number of peaks of the process so far.
    epoch: u64,
}

impl Sites {
    /// Adds a site; returns its index.
    pub fn add(&mut self) -> u32 {
        self.counts.push(Counts::default());
        self.lives.push(Lives::default());
        self.counts.len() as u32 - 1
    }

    /// Number of sites.
    #[must_use]
    pub fn len(&self) -> usize {
        self.counts.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// A block of the site starts.
    #[inline]
    pub fn start(&mut self, site: u32, size: u64) {
        let counts = &mut self.counts[site as usize];
        counts.enter(self.epoch);
        counts.allocations += 1;
        counts.allocated = counts.allocated.wrapping_add(size);
        counts.peak = counts.peak.max(counts.live());
    }

    /// A block of the site ends.
    #[inline]
    pub fn end(&mut self, site: u32, size: u64) {
        let counts = &mut self.counts[site as usize];
        counts.enter(self.epoch);
        counts.deallocations += 1;
        counts.deallocated = counts.deallocated.wrapping_add(size);
    }

    /// A block that had ended lives on.
    pub fn reopen(&mut self, site: u32, size: u64) {
        let counts = &mut self.counts[site as usize];
        counts.enter(self.epoch);
        counts.deallocations = counts.deallocations.wrapping_sub(1);
        counts.deallocated = counts.deallocated.wrapping_sub(size);
    }

    /// The process has reached a new peak.
    #[inline]
    pub const fn peak(&mut self) {
        self.epoch += 1;
    }

    /// Reads what a start or an end at the site will need.
    #[inline]
    #[must_use]
    pub fn touch(&self, site: u32) -> u64 {
        self.counts.get(site as usize).map_or(0, |counts| counts.epoch)
    }

    /// A life of the site is over.
    #[inline]
    pub fn lived(&mut self, site: u32, lifetime: u64) {
        self.batch.push((site, lifetime));
        if self.batch.len() >= BATCH {
            self.settle();
        }
    }

    /// Puts the lifetimes down that have not been yet.
    pub fn settle(&mut self) {
        if self.lives.len() > NEAR || self.histograms.is_far() {
            self.look_ahead();
        }
        for &(site, lifetime) in &self.batch {
            let lives = &mut self.lives[site as usize];
            lives.sum += u128::from(lifetime);
            lives.min = lives.min.min(lifetime);
            lives.max = lives.max.max(lifetime);
            lives.short += u64::from(lifetime < SHORT);
            self.histograms.add(site, &mut lives.few, lifetime);
        }
        self.batch.clear();
    }

    /// Looks at all that the batch will need.
    fn look_ahead(&self) {
        let mut sum = 0;
        for &(site, lifetime) in &self.batch {
            sum ^= self.lives[site as usize].short ^ self.histograms.touch(site, lifetime);
        }
        black_box(sum);
    }

    /// The sums of a site, after [`Sites::settle`]. The mean lifetime is that of all its allocations.
    #[must_use]
    pub fn stats(&self, site: u32) -> SiteStats {
        let mut counts = self.counts[site as usize];
        counts.enter(self.epoch);
        SiteStats {
            allocations: counts.allocations,
            allocated: counts.allocated,
            deallocations: counts.deallocations,
            deallocated: counts.deallocated,
            active_allocations: counts.allocations.wrapping_sub(counts.deallocations),
            active_memory: counts.live(),
            peak_memory: counts.peak,
            memory_at_peak: if self.epoch == 0 { 0 } else { counts.at_peak },
            lifetime_ns: self.lifetimes(site, counts.allocations),
            short_lived: self.lives[site as usize].short,
        }
    }

    fn lifetimes(&self, site: u32, count: u64) -> Lifetimes {
        let Lives { sum, min, max, few, .. } = &self.lives[site as usize];
        if min > max {
            return Lifetimes::default();
        }
        let quantiles = self.histograms.quantiles(site, few, [500, 900, 990]);
        let [p50, p90, p99] = quantiles.map(|value| value.clamp(*min, *max));
        let mean = (sum / u128::from(count.max(1))) as u64;
        Lifetimes { min: *min, max: *max, mean, p50, p90, p99 }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Rng;
    use super::*;

    #[test]
    fn memory_at_peak_is_that_of_the_peak() {
        let mut random = Rng::new(9);
        let mut sites = Sites::default();
        (0..8).for_each(|_| _ = sites.add());
        let (mut held, mut at_peak, mut peaks) = ([0u64; 8], [0u64; 8], [0u64; 8]);
        let (mut peak, mut blocks) = (0, Vec::new());
        for _ in 0..5_000 {
            if random.below(2) == 0 || blocks.is_empty() {
                let (site, size) = (random.below(8) as u32, random.below(100));
                sites.start(site, size);
                blocks.push((site, size));
                held[site as usize] += size;
                peaks[site as usize] = peaks[site as usize].max(held[site as usize]);
                if held.iter().sum::<u64>() > peak {
                    peak = held.iter().sum();
                    at_peak = held;
                    sites.peak();
                }
            } else {
                let (site, size) = blocks.swap_remove(random.below(blocks.len() as u64) as usize);
                sites.end(site, size);
                held[site as usize] -= size;
            }
        }
        for site in 0..8 {
            let stats = sites.stats(site as u32);
            assert_eq!(stats.memory_at_peak, at_peak[site]);
            assert_eq!(stats.active_memory, held[site]);
            assert_eq!(stats.peak_memory, peaks[site]);
        }
        assert_eq!((0..8).map(|site| sites.stats(site).memory_at_peak).sum::<u64>(), peak);
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
