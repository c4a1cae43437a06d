//! The sums of a few hundred sites, and what is still to be put down in them.

use std::hint::black_box;

use super::super::histogram::{Few, Histograms};
use crate::model::{Lifetimes, SiteStats};

/// Sites of a shard: what they take, 128 bytes each and their histograms, fits into the nearer caches.
pub const WIDTH: usize = 256;
/// Ends of lives that are looked at ahead.
const AHEAD: usize = 32;
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
    #[inline(always)]
    const fn live(&self) -> u64 {
        self.allocated.wrapping_sub(self.deallocated)
    }

    /// Notes what was held at the last peak, if that has not been done.
    #[inline(always)]
    const fn enter(&mut self, epoch: u64) {
        if self.epoch != epoch {
            self.at_peak = self.live();
            self.epoch = epoch;
        }
    }

    #[inline(always)]
    fn start(&mut self, epoch: u64, size: u64) {
        self.enter(epoch);
        self.allocations += 1;
        self.allocated = self.allocated.wrapping_add(size);
        self.peak = self.peak.max(self.live());
    }

    #[inline(always)]
    const fn end(&mut self, epoch: u64, size: u64) {
        self.enter(epoch);
        self.deallocations += 1;
        self.deallocated = self.deallocated.wrapping_add(size);
    }

    const fn reopen(&mut self, epoch: u64, size: u64) {
        self.enter(epoch);
        self.deallocations = self.deallocations.wrapping_sub(1);
        self.deallocated = self.deallocated.wrapping_sub(size);
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

/// What happens to a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A block starts.
    Start = 0,
    /// A block ends.
    End = 1,
    /// A block that had ended lives on.
    Reopen = 2,
}

/// A change of a site's counts that is still to be put down: in one word, the lowest bits first, the site, what happens, when
/// and the size.
#[derive(Clone, Copy, Debug)]
pub struct Change(u64);

const SITE_BITS: u32 = WIDTH.ilog2();
const EPOCH_SHIFT: u32 = SITE_BITS + 2;
const EPOCH_BITS: u32 = 22;
const SIZE_SHIFT: u32 = EPOCH_SHIFT + EPOCH_BITS;

impl Change {
    /// Something happens to a site, by its number in the shard, so many epochs after the journal's first. `None` where that
    /// is too long after, or the size too large.
    #[inline(always)]
    #[must_use]
    pub const fn new(site: usize, what: What, epochs: u64, size: u64) -> Option<Self> {
        if epochs >> EPOCH_BITS != 0 || size >> (u64::BITS - SIZE_SHIFT) != 0 {
            return None;
        }
        Some(Self(size << SIZE_SHIFT | epochs << EPOCH_SHIFT | (what as u64) << SITE_BITS | site as u64))
    }
}

/// The end of a life that is still to be put down: lifetime and site.
#[derive(Clone, Copy, Debug)]
pub struct Lived(u64);

impl Lived {
    /// A site's block, by the site's number in the shard, lived so long. `None` where that is too long.
    #[inline(always)]
    #[must_use]
    pub const fn new(site: usize, lifetime: u64) -> Option<Self> {
        if lifetime >> (u64::BITS - SITE_BITS) != 0 {
            return None;
        }
        Some(Self(lifetime << SITE_BITS | site as u64))
    }
}

/// Some sites.
#[derive(Debug, Default)]
pub struct Shard {
    counts: Vec<Counts>,
    lives: Vec<Lives>,
    histograms: Histograms,
}

impl Shard {
    /// Adds a site.
    pub fn add(&mut self) {
        self.counts.push(Counts::default());
        self.lives.push(Lives::default());
    }

    /// Number of sites.
    #[must_use]
    pub fn len(&self) -> usize {
        self.counts.len()
    }

    /// Something happens to a site.
    #[inline(always)]
    pub fn happens(&mut self, site: usize, what: What, epoch: u64, size: u64) {
        let counts = &mut self.counts[site];
        match what {
            What::Start => counts.start(epoch, size),
            What::End => counts.end(epoch, size),
            What::Reopen => counts.reopen(epoch, size),
        }
    }

    /// Puts changes down, in their order, the first epoch of their journal being `since`. Which of them start blocks can
    /// hardly be foreseen, so nothing branches on it.
    pub fn change(&mut self, changes: &[Change], since: u64) {
        for &Change(word) in changes {
            let (site, what, size) = (word as usize % WIDTH, word >> SITE_BITS & 3, word >> SIZE_SHIFT);
            let counts = &mut self.counts[site];
            counts.enter(since + (word >> EPOCH_SHIFT) % (1 << EPOCH_BITS));
            if what > 1 {
                counts.reopen(counts.epoch, size);
                continue;
            }
            let starts = (what ^ 1).wrapping_neg();
            counts.allocations += what ^ 1;
            counts.deallocations += what;
            counts.allocated = counts.allocated.wrapping_add(size & starts);
            counts.deallocated = counts.deallocated.wrapping_add(size & !starts);
            counts.peak = counts.peak.max(counts.live() & starts);
        }
    }

    /// Puts the ends of lives down.
    pub fn live(&mut self, lives: &[Lived]) {
        for lives in lives.chunks(AHEAD) {
            if self.histograms.is_far() {
                // All at once: one by one, each would wait for memory.
                let touch = |&Lived(word): &Lived| {
                    self.histograms.touch(word as u32 % WIDTH as u32, word >> SITE_BITS)
                };
                black_box(lives.iter().map(touch).fold(0, |all, row| all ^ row));
            }
            for &Lived(word) in lives {
                self.lived(word as usize % WIDTH, word >> SITE_BITS);
            }
        }
    }

    /// A life of a site is over.
    #[inline(always)]
    pub fn lived(&mut self, site: usize, lifetime: u64) {
        let lives = &mut self.lives[site];
        lives.sum += u128::from(lifetime);
        lives.min = lives.min.min(lifetime);
        lives.max = lives.max.max(lifetime);
        lives.short += u64::from(lifetime < SHORT);
        self.histograms.add(site as u32, &mut lives.few, lifetime);
    }

    /// The sums of a site. `epoch` is the number of peaks of the process.
    #[must_use]
    pub fn stats(&self, site: usize, epoch: u64) -> SiteStats {
        let mut counts = self.counts[site];
        counts.enter(epoch);
        SiteStats {
            allocations: counts.allocations,
            allocated: counts.allocated,
            deallocations: counts.deallocations,
            deallocated: counts.deallocated,
            active_allocations: counts.allocations.wrapping_sub(counts.deallocations),
            active_memory: counts.live(),
            peak_memory: counts.peak,
            memory_at_peak: if epoch == 0 { 0 } else { counts.at_peak },
            lifetime_ns: self.lifetimes(site, counts.allocations),
            short_lived: self.lives[site].short,
        }
    }

    fn lifetimes(&self, site: usize, count: u64) -> Lifetimes {
        let Lives { sum, min, max, few, .. } = &self.lives[site];
        if min > max {
            return Lifetimes::default();
        }
        let quantiles = self.histograms.quantiles(site as u32, few, *min..=*max, [500, 900, 990]);
        let [p50, p90, p99] = quantiles.map(|value| value.clamp(*min, *max));
        let mean = (sum / u128::from(count.max(1))) as u64;
        Lifetimes { min: *min, max: *max, mean, p50, p90, p99 }
    }
}
