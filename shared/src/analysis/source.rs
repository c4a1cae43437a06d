//! Where the events come from: streams of blocks, each block a run of records.
//!
//! The analysis asks for blocks by number and in any order, so that it never has to hold more of a
//! recording than what is due. A trace file is one source; tests use [`MemorySource`].

use super::event::is_special;
use crate::record::{Records, stamp_of};

/// What is known about a block without decoding it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Block {
    /// What [`EventSource::read`] wants to hear.
    pub id: u32,
    /// Words that the block's records take.
    pub words: u32,
    /// Words at the start that the block before it has already given.
    pub skip: u32,
    /// First stamp.
    pub first_stamp: u64,
    /// Last stamp.
    pub last_stamp: u64,
    /// The block may hold records other than those of blocks' starts and ends.
    pub special: bool,
}

/// One stream: what one thread wrote at one level of nesting, in its order; another thread may continue it when
/// that one has gone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stream {
    /// Number of the thread that began it.
    pub thread: u32,
    /// Its blocks, in order of their positions.
    pub blocks: Vec<Block>,
}

/// Streams of records.
pub trait EventSource {
    /// The streams. Everywhere else they are named by their index in here.
    fn streams(&self) -> &[Stream];

    /// Decodes a block. Its words stay where they are until the next call.
    ///
    /// # Errors
    ///
    /// Where the block cannot be read or is damaged; the text says how.
    fn read(&mut self, block: u32) -> Result<&[u64], String>;

    /// Decodes a block whose [`Block::skip`] is 0: of its records, those that are special are there, others may be missing.
    ///
    /// # Errors
    ///
    /// As [`EventSource::read`], but what is wrong with the others may go unnoticed.
    fn read_special(&mut self, block: u32) -> Result<&[u64], String> {
        self.read(block)
    }

    /// Decodes a block into `words`, in place of what they held.
    ///
    /// # Errors
    ///
    /// As [`EventSource::read`]; `words` may hold anything then.
    fn take(&mut self, block: u32, words: &mut Vec<u64>) -> Result<(), String> {
        words.clear();
        words.extend_from_slice(self.read(block)?);
        Ok(())
    }
}

/// A source in memory.
#[derive(Clone, Debug, Default)]
pub struct MemorySource {
    streams: Vec<Stream>,
    blocks: Vec<Vec<u64>>,
}

impl MemorySource {
    /// Without streams.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a stream of `thread`, cut into blocks as given. Empty blocks are left out.
    pub fn push<B: AsRef<[u64]>>(&mut self, thread: u32, blocks: &[B]) {
        let mut stream = Stream { thread, blocks: Vec::new() };
        for words in blocks.iter().map(AsRef::as_ref).filter(|words| !words.is_empty()) {
            let (first_stamp, last_stamp, special) = describe(words);
            stream.blocks.push(Block {
                id: self.blocks.len() as u32,
                words: words.len() as u32,
                skip: 0,
                first_stamp,
                last_stamp,
                special,
            });
            self.blocks.push(words.to_vec());
        }
        self.streams.push(stream);
    }
}

/// First and last stamp of a run of records, and whether some are not starts or ends of blocks.
fn describe(words: &[u64]) -> (u64, u64, bool) {
    let (mut first, mut last, mut special) = (None, 0, false);
    for record in Records::new(words) {
        special |= is_special(record[0]);
        if let Some(stamp) = stamp_of(record) {
            first.get_or_insert(stamp);
            last = stamp;
        }
    }
    (first.unwrap_or(0), last, special)
}

impl EventSource for MemorySource {
    fn streams(&self) -> &[Stream] {
        &self.streams
    }

    fn read(&mut self, block: u32) -> Result<&[u64], String> {
        Ok(&self.blocks[block as usize])
    }
}
