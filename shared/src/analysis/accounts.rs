//! The accounts of a process: totals, peak, sites, lifetimes, points in time, single allocations.

use super::blocks::{Allocation, Collector};
use super::lifetimes::LifetimeHistogram;
use super::names::NamedBlocks;
use super::owners::Owners;
use super::pairing::{Block, By, Ending, Ledger, Life, NO_STREAM};
use super::sites::Sites;
use super::timeline::{Active, Timeline};
use crate::model::{FreedBy, Stats};

/// All sums that pairing feeds.
#[derive(Debug)]
pub struct Accounts {
    /// Totals; what was active is in `active` until the end.
    pub stats: Stats,
    /// What is active.
    pub active: Active,
    /// Sums of each site.
    pub sites: Sites,
    /// Points in time.
    pub timeline: Timeline,
    /// Lifetimes of all blocks.
    pub lifetimes: LifetimeHistogram,
    /// Single allocations.
    pub collector: Collector,
    /// Blocks whose end nobody saw, though their address was given out again.
    pub unseen_ends: u64,
    /// Threads of the streams.
    pub owners: Owners,
    /// Names of the blocks.
    pub named: NamedBlocks,
    /// Ends of blocks that nobody saw are those of blocks of the parent.
    inherits: bool,
}

impl Accounts {
    /// Everything is 0.
    #[must_use]
    pub fn new(owners: Owners, inherits: bool, timeline: Timeline, collector: Collector) -> Self {
        Self {
            stats: Stats::default(),
            active: Active::default(),
            sites: Sites::default(),
            timeline,
            lifetimes: LifetimeHistogram::default(),
            collector,
            unseen_ends: 0,
            owners,
            named: NamedBlocks::default(),
            inherits,
        }
    }

    /// A call has failed.
    pub const fn failed(&mut self) {
        self.stats.failed_allocations += 1;
    }

    /// A block is live at the end of the recording.
    pub fn left(&mut self, block: &Block, end: u64, freed_by: FreedBy) {
        self.lived(block, end, NO_STREAM, freed_by);
    }

    /// The totals, after the last event.
    #[must_use]
    pub const fn totals(&self) -> Stats {
        Stats { active_allocations: self.active.allocations, active_memory: self.active.memory, ..self.stats }
    }

    #[inline(always)]
    fn lived(&mut self, block: &Block, end: u64, end_stream: u32, freed_by: FreedBy) {
        let lifetime = end.saturating_sub(block.start);
        let name = self.named.take(block, end.max(block.start), end_stream);
        if name != 0 {
            let lives = matches!(freed_by, FreedBy::Exit | FreedBy::Live);
            self.named.lived(name, block.size, lifetime, lives);
        }
        self.sites.lived(block.site, lifetime);
        self.lifetimes.add(lifetime, block.size);
        if self.collector.wants(freed_by) {
            self.collect(block, end, end_stream, name, freed_by);
        }
    }

    /// Adds a block to the list of single allocations.
    #[inline(never)]
    fn collect(&mut self, block: &Block, end: u64, end_stream: u32, name: u32, freed_by: FreedBy) {
        let thread = self.owners.at(block.stream, block.start);
        // Where the end's stamp lies before that of the start, it is the end's that counts: the address may have been given out
        // again before the start's, and then the block would seem to have begun in the next one's life.
        let start = block.start.min(end);
        let end_thread = self.owners.at(end_stream, end);
        let Block { address, size, site, .. } = *block;
        self.collector.push(&Allocation {
            start,
            address,
            size,
            end,
            site,
            thread,
            end_thread,
            name,
            freed_by,
        });
    }
}

impl Ledger for Accounts {
    #[inline(always)]
    fn start(&mut self, block: &Block) {
        self.stats.total_allocations += 1;
        self.stats.total_allocated = self.stats.total_allocated.wrapping_add(block.size);
        self.active.allocations += 1;
        self.active.memory = self.active.memory.wrapping_add(block.size);
        self.sites.start(block.site, block.size);
        if self.active.memory > self.stats.peak_memory {
            self.stats.peak_memory = self.active.memory;
            self.stats.peak_allocations = self.active.allocations;
            self.stats.peak_time = block.start;
            self.sites.peak();
        }
    }

    #[inline]
    fn end(&mut self, block: &Block) {
        self.stats.total_deallocations += 1;
        self.stats.total_deallocated = self.stats.total_deallocated.wrapping_add(block.size);
        self.active.allocations = self.active.allocations.wrapping_sub(1);
        self.active.memory = self.active.memory.wrapping_sub(block.size);
        self.sites.end(block.site, block.size);
        self.named.ends(block, false);
    }

    fn reopen(&mut self, block: &Block) {
        self.stats.total_deallocations = self.stats.total_deallocations.wrapping_sub(1);
        self.stats.total_deallocated = self.stats.total_deallocated.wrapping_sub(block.size);
        self.active.allocations += 1;
        self.active.memory = self.active.memory.wrapping_add(block.size);
        self.sites.reopen(block.site, block.size);
        self.named.ends(block, true);
    }

    #[inline]
    fn close(&mut self, life: &Life) {
        self.unseen_ends += u64::from(life.end.by == By::Unseen);
        let freed_by = if life.end.by == By::Realloc { FreedBy::Realloc } else { FreedBy::Free };
        self.lived(&life.block, life.end.time, life.end.stream, freed_by);
    }

    fn realloc(&mut self) {
        self.stats.reallocations += 1;
    }

    fn unknown(&mut self, _: &Ending) {
        if self.inherits {
            self.stats.inherited_frees += 1;
        } else {
            self.stats.unknown_frees += 1;
        }
    }
}
