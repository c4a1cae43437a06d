//! The engine: takes the merged events and drives pairing and the accounts.

use std::hint::black_box;

use super::accounts::Accounts;
use super::event::{Event, EventKind, EventSink};
use super::merge::BATCH;
use super::owners::Used;
use super::pairing::{Block, By, Ending, Pairing};
use super::stacks::Stacks;
use crate::trace::{Clock, ClockCursor};

/// Sites from which on their numbers may lie all over a large table.
const FAR: usize = 256;

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
    /// Of each recorded id, its site plus one, once it was looked up.
    of_id: Vec<u32>,
    /// Of each leaf, its site plus one.
    of_leaf: Vec<u32>,
    nowhere: u32,
    lost: u32,
    places: Vec<Place>,
}

impl<'a> SiteIndex<'a> {
    fn new(stacks: &'a Stacks) -> Self {
        let none = vec![0; stacks.len()];
        Self { stacks, of_id: none.clone(), of_leaf: none, nowhere: 0, lost: 0, places: Vec::new() }
    }

    #[inline]
    fn site(&mut self, stack: u32, accounts: &mut Accounts) -> u32 {
        match self.known(stack) {
            Some(site) => site,
            None => self.look_up(stack, accounts),
        }
    }

    /// The site of a recorded stack, if it was looked up before.
    #[inline]
    fn known(&self, stack: u32) -> Option<u32> {
        self.of_id.get(stack as usize)?.checked_sub(1)
    }

    /// Reads what a look-up would read first.
    #[inline]
    fn touch(&self, stack: u32) -> u64 {
        self.of_id.get(stack as usize).map_or(0, |&site| u64::from(site))
    }

    #[cold]
    fn look_up(&mut self, stack: u32, accounts: &mut Accounts) -> u32 {
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
        if let Some(of_id) = self.of_id.get_mut(stack as usize) {
            *of_id = *slot;
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
    /// Threads that have started or ended blocks.
    used: Used,
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
    /// The threads that have started or ended blocks.
    pub used: Used,
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
            used: Used::new(streams),
            now: 0,
        }
    }

    /// The first event of a second stream comes at this time; see [`Pairing::second_stream_at`].
    pub const fn second_stream_at(&mut self, time: u64) {
        self.pairing.second_stream_at(time);
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

    /// Looks at all that the events will need. None of these reads waits for another event's, nor for a
    /// branch, so the processor fetches many of them at once.
    #[inline]
    fn look_ahead(&mut self, events: &[Event]) {
        let mut sum = 0;
        if self.pairing.is_far() {
            for event in events {
                sum ^= self.pairing.touch(event.address);
            }
        }
        // The numbers of the sites are near anyway where there are few.
        if self.accounts.sites.len() > FAR {
            for event in events {
                sum ^= self.sites.touch(event.stack);
            }
        }
        black_box(sum);
    }

    #[inline]
    fn event(&mut self, event: &Event) {
        let time = self.clock.ns_near(&mut self.cursor, event.stamp).max(self.now);
        self.now = time;
        self.accounts.timeline.advance(time, self.accounts.active);
        let &Event { address, size, stream, .. } = event;
        if event.kind == EventKind::Named {
            return self.name(event, time);
        }
        if event.kind != EventKind::Failed {
            self.used.mark(&self.accounts.owners, stream, time);
        }
        let by = match event.kind {
            EventKind::Failed => return self.accounts.failed(),
            // No allocator gives out address 0, and to free it does nothing.
            _ if address == 0 => return,
            EventKind::Start => {
                let site = self.sites.site(event.stack, &mut self.accounts);
                let block = Block { address, start: time, size, site, stream };
                self.accounts.named.starts(&block);
                return self.pairing.start(block, &mut self.accounts);
            }
            EventKind::Free => By::Free,
            EventKind::Realloc => {
                self.accounts.named.moves(self.pairing.certain(address), stream);
                By::Realloc
            }
            EventKind::Named => return,
        };
        self.pairing.end(address, Ending { time, stream, by }, &mut self.accounts);
    }
}

impl Engine<'_> {
    /// A block gets a name, if it is certain which block it is.
    #[cold]
    fn name(&mut self, event: &Event, time: u64) {
        let &Event { address, size, stack, stream, .. } = event;
        let found = match size {
            0 => self.pairing.certain(address),
            reach => self.accounts.named.around(address, reach, |start| self.pairing.certain(start)),
        };
        if let Some(block) = found {
            self.accounts.named.name(block, stack, time, stream);
        }
    }
}

impl EventSink for Engine<'_> {
    fn batch(&mut self, events: &[Event]) {
        for events in events.chunks(BATCH) {
            self.look_ahead(events);
            for event in events {
                self.event(event);
            }
        }
    }
}
