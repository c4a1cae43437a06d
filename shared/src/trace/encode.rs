//! From records to frames: what the recorder's writer calls.
//!
//! Nothing here locks, prints, touches thread-local storage or panics, whatever the input. Scratch memory
//! belongs to the [`Encoder`] and is used again for each block.

use super::codec;
use super::codec::split::{Splitter, Summary};
use super::frame::{FLAG_PLAIN, FrameHeader, Kind, OpenFrame};
use crate::record::{Records, stamp_of};

/// A compressor, so that this crate needs none for writing.
pub trait Compress {
    /// Appends a zstd frame that holds `src` to `dst`; false where it could not.
    fn compress(&mut self, src: &[u8], dst: &mut Vec<u8>) -> bool;

    /// The same for what hardly repeats itself, but is of few different bytes: codes for these are all that is to be gained.
    fn compress_noise(&mut self, src: &[u8], dst: &mut Vec<u8>) -> bool {
        self.compress(src, dst)
    }
}

/// No compression: what is encoded is stored as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Uncompressed;

impl Compress for Uncompressed {
    fn compress(&mut self, _: &[u8], _: &mut Vec<u8>) -> bool {
        false
    }
}

/// Where a block's records come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Number of the stream, from 1.
    pub stream: u32,
    /// Number of the thread that wrote it.
    pub thread: u32,
    /// Position in the stream of the first word, in words.
    pub position: u64,
}

/// Makes frames of records.
///
/// It holds some 1.3 MiB, and 16 bytes for each allocation of its largest block.
#[derive(Debug)]
pub struct Encoder {
    unit: u32,
    codec: u8,
    splitter: Splitter,
    packed: Vec<u8>,
    records: u64,
}

impl Default for Encoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Encoder {
    /// An encoder with exact stamps and the most compact codec.
    #[must_use]
    pub fn new() -> Self {
        Self { unit: 1, codec: codec::COLUMNS, splitter: Splitter::new(), packed: Vec::new(), records: 0 }
    }

    /// Rounds the stamps of what is encoded from now on down to multiples of `unit` (1: exact).
    ///
    /// A clock that steps by `unit` loses nothing by it.
    pub fn set_unit(&mut self, unit: u32) {
        self.unit = unit.max(1);
    }

    /// Records that were encoded so far.
    #[must_use]
    pub const fn records(&self) -> u64 {
        self.records
    }

    /// Picks the codec: [`codec::ROWS`] or [`codec::COLUMNS`].
    pub fn set_codec(&mut self, codec: u8) {
        self.codec = codec;
    }

    /// Appends frames with all of `rows` to `out`: whole records of one stream, the first word of
    /// which stands at `block.position`. One frame, unless there are more words than a frame holds.
    pub fn encode<C: Compress + ?Sized>(
        &mut self,
        compress: &mut C,
        block: Block,
        rows: &[u64],
        out: &mut Vec<u8>,
    ) {
        self.encode_parts(compress, block, &[rows], out);
    }

    /// The same for records that lie in several pieces of memory, one after the other in the stream.
    /// Each piece holds whole records.
    ///
    /// Longer blocks are smaller: prefer one call with ten buffers over ten calls.
    pub fn encode_parts<C: Compress + ?Sized>(
        &mut self,
        compress: &mut C,
        mut block: Block,
        parts: &[&[u64]],
        out: &mut Vec<u8>,
    ) {
        let mut summary = Summary::default();
        self.splitter.begin(self.unit);
        for &part in parts {
            let mut rest = part;
            if self.codec != codec::ROWS {
                rest = self.split(compress, &mut block, rest, &mut summary, out);
            }
            for rows in rest.chunks(codec::MAX_BLOCK_WORDS) {
                self.records += write_rows(block, rows, out);
                block.position += rows.len() as u64;
            }
        }
        self.finish(compress, &mut block, &mut summary, out);
    }

    /// Takes `rows` into the block, and finishes blocks as they get full. Gives what makes no records.
    fn split<'a, C: Compress + ?Sized>(
        &mut self,
        compress: &mut C,
        block: &mut Block,
        mut rows: &'a [u64],
        summary: &mut Summary,
        out: &mut Vec<u8>,
    ) -> &'a [u64] {
        loop {
            let taken = self.splitter.take(rows, summary);
            rows = &rows[taken..];
            if rows.is_empty() {
                return rows;
            }
            let stuck = summary.words == 0;
            self.finish(compress, block, summary, out);
            if stuck {
                return rows;
            }
        }
    }

    /// Appends the frame of the block that was split, and begins the next.
    fn finish<C: Compress + ?Sized>(
        &mut self,
        compress: &mut C,
        block: &mut Block,
        summary: &mut Summary,
        out: &mut Vec<u8>,
    ) {
        if summary.words == 0 {
            return;
        }
        let frame = OpenFrame::begin(out);
        codec::columns::write(&self.splitter.columns, compress, &mut self.packed, out);
        let flags = if self.splitter.is_plain() { FLAG_PLAIN } else { 0 };
        let header =
            FrameHeader { codec: codec::COLUMNS, flags, unit: self.unit, ..events_header(*block, summary) };
        frame.finish(out, header);
        block.position += summary.words as u64;
        self.records += u64::from(summary.records);
        *summary = Summary::default();
        self.splitter.begin(self.unit);
    }
}

/// A header of records with everything but how they are encoded.
fn events_header(block: Block, summary: &Summary) -> FrameHeader {
    FrameHeader {
        stream: block.stream,
        thread: block.thread,
        position: block.position,
        first_stamp: summary.first_stamp.min(summary.last_stamp),
        last_stamp: summary.last_stamp,
        records: summary.records,
        raw_len: (summary.words * 8) as u32,
        ..FrameHeader::new(Kind::EVENTS)
    }
}

/// Appends a frame of codec 0; gives the number of its records.
fn write_rows(block: Block, rows: &[u64], out: &mut Vec<u8>) -> u64 {
    let frame = OpenFrame::begin(out);
    let mut summary = Summary { words: rows.len(), ..Summary::default() };
    for record in Records::new(rows) {
        summary.records += 1;
        if let Some(stamp) = stamp_of(record) {
            summary.first_stamp = stamp.min(summary.first_stamp);
            summary.last_stamp = stamp.max(summary.last_stamp);
        }
    }
    for word in rows {
        out.extend_from_slice(&word.to_le_bytes());
    }
    frame.finish(out, FrameHeader { codec: codec::ROWS, unit: 1, ..events_header(block, &summary) });
    summary.records.into()
}

#[cfg(test)]
#[path = "encode_tests.rs"]
mod tests;
