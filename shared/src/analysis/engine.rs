//! The engine: takes the merged events and drives pairing and the accounts.

use std::hint::black_box;

use super::accounts::Accounts;
use super::event::{Event, EventKind, EventSink};
use super::pairing::{Block, By, Ending, Pairing};
use super::stacks::Stacks;
use crate::trace::{Clock, ClockCursor};

/// What a site stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The stack with this leaf.
    Leaf(u32),
    /// No stack was recorded.
    Nowhere,
    /// The stack's nodes are missing from the recording.
    Lost,
}

/// From recorded stacks to sites, which are made as they are needed.
#[derive(Debug)]
struct SiteIndex<'a> {
    stacks: &'a Stacks,
    /// Of each leaf, its site plus one.
    of_leaf: Vec<u32>,
    nowhere: u32,
    lost: u32,
    places: Vec<Place>,
}

impl<'a> SiteIndex<'a> {
    fn new(stacks: &'a Stacks) -> Self {
        Self { stacks, of_leaf: vec![0; stacks.len()], nowhere: 0, lost: 0, places: Vec::new() }
    }

    #[inline]
    fn site(&mut self, stack: u32, accounts: &mut Accounts) -> u32 {
        let place = match self.stacks.leaf(stack) {
            Some(leaf) => Place::Leaf(leaf),
            None if stack == 0 => Place::Nowhere,
            None => Place::Lost,
        };
        let slot = match place {
            Place::Leaf(leaf) => &mut self.of_leaf[leaf as usize],
            Place::Nowhere => &mut self.nowhere,
            Place::Lost => &mut self.lost,
        };
        if *slot == 0 {
            *slot = accounts.sites.add() + 1;
            self.places.push(place);
        }
        *slot - 1
    }
}

/// Turns events into accounts.
#[derive(Debug)]
pub struct Engine<'a> {
    clock: &'a Clock,
    cursor: ClockCursor,
    pairing: Pairing,
    accounts: Accounts,
    sites: SiteIndex<'a>,
    /// Streams that have started or ended blocks.
    used: Vec<bool>,
    /// The last event's time.
    now: u64,
}

/// What an engine leaves.
#[derive(Debug)]
pub struct Done {
    /// The accounts, with everything in them but the blocks that live.
    pub accounts: Accounts,
    /// The blocks that live.
    pub pairing: Pairing,
    /// What each site stands for.
    pub places: Vec<Place>,
    /// Of each stream, whether it has started or ended blocks.
    pub used: Vec<bool>,
    /// Time of the last event; 0 where there was none.
    pub last_time: u64,
}

impl<'a> Engine<'a> {
    /// Starts with nothing live, for this many streams.
    #[must_use]
    pub fn new(clock: &'a Clock, stacks: &'a Stacks, streams: usize, accounts: Accounts) -> Self {
        Self {
            clock,
            cursor: ClockCursor::default(),
            pairing: Pairing::new(),
            accounts,
            sites: SiteIndex::new(stacks),
            used: vec![false; streams],
            now: 0,
        }
    }

    /// No more events come.
    #[must_use]
    pub fn finish(mut self) -> Done {
        self.pairing.finish(&mut self.accounts);
        Done {
            accounts: self.accounts,
            pairing: self.pairing,
            places: self.sites.places,
            used: self.used,
            last_time: self.now,
        }
    }

    #[inline]
    fn event(&mut self, event: &Event) {
        let time = self.clock.ns_near(&mut self.cursor, event.stamp).max(self.now);
        self.now = time;
        self.accounts.timeline.advance(time, self.accounts.active);
        let &Event { address, size, stream, .. } = event;
        match event.kind {
            EventKind::Failed => return self.accounts.failed(),
            // No allocator gives out address 0, and to free it does nothing.
            _ if address == 0 => return,
            EventKind::Start => {
                let site = self.sites.site(event.stack, &mut self.accounts);
                let block = Block { address, start: time, size, site, stream };
                self.pairing.start(block, &mut self.accounts);
            }
            EventKind::Free => {
                self.pairing.end(address, Ending { time, stream, by: By::Free }, &mut self.accounts)
            }
            EventKind::Realloc => {
                self.pairing.end(address, Ending { time, stream, by: By::Realloc }, &mut self.accounts);
            }
        }
        self.used[stream as usize] = true;
    }
}

impl EventSink for Engine<'_> {
    fn batch(&mut self, events: &[Event]) {
        // None of these reads needs another's result, so the processor waits for all of them at once.
        black_box(events.iter().fold(0, |sum, event| sum ^ self.pairing.touch(event.address)));
        for event in events {
            self.event(event);
        }
    }
}
