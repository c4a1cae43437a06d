//! Events: what the merge makes of the records, and what pairing works on.

use crate::record::{kind, kind_of};

/// What an event does to the block at its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// The block starts.
    Start,
    /// It ends by `free` or a kin of it.
    Free,
    /// It ends by a `realloc`, whose result is the stream's next start.
    Realloc,
    /// A call failed; there is no block.
    Failed,
    /// The live block gets the name whose number stands in place of a stack (0: its variable has gone). Where a size is
    /// given, the block is the one around the address, and begins at most so many bytes before it.
    Named,
}

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// When, as a reading of the recording's clock.
    pub stamp: u64,
    /// Address of the block.
    pub address: u64,
    /// Its size in bytes, of a `Start`; how far before the address the block may begin, of a `Named`.
    pub size: u64,
    /// Its stack as recorded, of a `Start`; the name's number, of a `Named`.
    pub stack: u32,
    /// Index of the stream that it came from.
    pub stream: u32,
    /// What happens.
    pub kind: EventKind,
}

/// Takes events over in batches: so that each part can look ahead over a few dozen of them.
pub trait EventSink {
    /// The next events, in order of their stamps.
    fn batch(&mut self, events: &[Event]);
}

impl<F: FnMut(&[Event])> EventSink for F {
    fn batch(&mut self, events: &[Event]) {
        self(events);
    }
}

/// Whether a record with this first word says something about other records: a stack, a thread or a
/// module, or something that this version doesn't know.
#[must_use]
pub const fn is_special(word0: u64) -> bool {
    kind_of(word0) >= kind::NODE
}
