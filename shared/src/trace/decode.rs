//! From frames back to records.

use std::fmt;

use super::codec;
use super::codec::columns::{self, Stored, column};
use super::codec::join::{Joiner, SPECIAL};
use super::frame::{FrameHeader, MAX_PAYLOAD_BYTES};
use crate::record::Records;

/// Why a frame could not be decoded.
#[derive(Debug)]
pub enum DecodeError {
    /// The file could not be read.
    Io(std::io::Error),
    /// The frame holds no records.
    NotEvents,
    /// Its bytes are not those that were written.
    Checksum,
    /// It claims more than any writer puts into a frame.
    TooLarge,
    /// It is encoded in a way that this version does not know.
    UnknownCodec(u8),
    /// Its checksum is right but its contents make no sense.
    Malformed(&'static str),
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "cannot read: {error}"),
            Self::NotEvents => f.write_str("holds no records"),
            Self::Checksum => f.write_str("checksum differs"),
            Self::TooLarge => f.write_str("claims to be larger than frames get"),
            Self::UnknownCodec(codec) => write!(f, "codec {codec} is unknown to this version"),
            Self::Malformed(what) => write!(f, "malformed: {what}"),
        }
    }
}

impl std::error::Error for DecodeError {}

/// Room for one decoded frame, used again for the next.
#[derive(Default)]
pub struct EventBuf {
    pub(super) payload: Vec<u8>,
    words: Vec<u64>,
    columns: [Vec<u8>; column::COUNT],
    joiner: Joiner,
    zstd: Option<zstd::bulk::Decompressor<'static>>,
}

impl fmt::Debug for EventBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventBuf").field("words", &self.words.len()).finish_non_exhaustive()
    }
}

impl EventBuf {
    /// Empty; allocates nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The words of the frame that was decoded last; none after an error.
    #[must_use]
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// Whether the room is about as large as the words of the frame that was decoded last.
    #[must_use]
    pub fn has_little_to_spare(&self) -> bool {
        self.words.capacity() <= 2 * self.words.len() + 1024
    }

    /// Gives the words of the frame that was decoded last away, for other room.
    pub fn swap(&mut self, words: &mut Vec<u64>) {
        std::mem::swap(&mut self.words, words);
    }

    /// Forgets what was decoded; keeps the memory.
    pub fn clear(&mut self) {
        self.words.clear();
    }

    /// Its records.
    #[must_use]
    pub fn records(&self) -> Records<'_> {
        Records::new(&self.words)
    }

    /// Decodes the payload of a frame that lies in memory.
    ///
    /// # Errors
    /// [`DecodeError`] for whatever is not as the header says; no words are left then.
    pub fn decode_payload(&mut self, header: &FrameHeader, payload: &[u8]) -> Result<(), DecodeError> {
        self.payload.clear();
        self.payload.extend_from_slice(payload);
        self.decode(header)
    }

    /// Decodes the payload that stands in `self.payload`.
    ///
    /// # Errors
    /// [`DecodeError`] for whatever is not as the header says.
    pub(super) fn decode(&mut self, header: &FrameHeader) -> Result<(), DecodeError> {
        self.check(header)?;
        let result = match header.codec {
            codec::ROWS => self.rows(header),
            codec::COLUMNS => self.columns(header),
            other => Err(DecodeError::UnknownCodec(other)),
        };
        if result.is_err() {
            self.words.clear();
        }
        result
    }

    /// Decodes no more than the records of kinds from `NODE` on need, where that is possible: the words then hold all of
    /// these, and may lack others.
    ///
    /// # Errors
    /// As [`EventBuf::decode`], but what is wrong with the others may go unnoticed.
    pub(super) fn decode_special(&mut self, header: &FrameHeader) -> Result<(), DecodeError> {
        self.check(header)?;
        if header.codec == codec::COLUMNS {
            self.unpack(header, &SPECIAL)?;
            let columns = self.columns.each_ref().map(Vec::as_slice);
            self.words
                .reserve(self.columns[column::NODE_PC].len() + self.columns[column::OTHER].len() / 8 + 4);
            if self.joiner.join_special(columns, &mut self.words).is_some() {
                return Ok(());
            }
        }
        self.decode(header)
    }

    /// Whether the payload is as it was written.
    fn check(&mut self, header: &FrameHeader) -> Result<(), DecodeError> {
        self.words.clear();
        if header.raw_len as usize > MAX_PAYLOAD_BYTES {
            return Err(DecodeError::TooLarge);
        }
        if crc32fast::hash(&self.payload) != header.payload_crc {
            return Err(DecodeError::Checksum);
        }
        Ok(())
    }

    fn rows(&mut self, header: &FrameHeader) -> Result<(), DecodeError> {
        if self.payload.len() != header.raw_len as usize || !self.payload.len().is_multiple_of(8) {
            return Err(DecodeError::Malformed("length of rows"));
        }
        let word = |b: &[u8]| super::frame::u64_at(b, 0);
        self.words.extend(self.payload.chunks_exact(8).map(word));
        Ok(())
    }

    /// Gives these columns their bytes, and the others none.
    fn unpack(&mut self, header: &FrameHeader, wanted: &[usize]) -> Result<(), DecodeError> {
        let words = header.words() as usize;
        // No record takes more than 30 bytes in columns where it took 24, nor 20 where it took 16.
        let limit = words * 16;
        let stored =
            columns::read(&self.payload, limit).ok_or(DecodeError::Malformed("lengths of columns"))?;
        if stored[column::OP].len > words / 2 {
            return Err(DecodeError::Malformed("more records than words"));
        }
        for (at, (column, stored)) in self.columns.iter_mut().zip(stored).enumerate() {
            let stored = if wanted.contains(&at) { stored } else { Stored::default() };
            unpack(&mut self.zstd, stored, column)?;
        }
        Ok(())
    }

    /// The records that columns make.
    fn columns(&mut self, header: &FrameHeader) -> Result<(), DecodeError> {
        let words = header.words() as usize;
        self.unpack(header, &ALL)?;
        self.words.reserve(words + 4);
        let columns = self.columns.each_ref().map(Vec::as_slice);
        let joined = self.joiner.join(columns, header.unit, &mut self.words);
        if joined.is_none() || self.words.len() != words {
            return Err(DecodeError::Malformed("records"));
        }
        Ok(())
    }
}

/// All columns.
const ALL: [usize; column::COUNT] = {
    let (mut all, mut at) = ([0; column::COUNT], 0);
    while at < all.len() {
        all[at] = at;
        at += 1;
    }
    all
};

/// Gives a column its bytes.
fn unpack(
    zstd: &mut Option<zstd::bulk::Decompressor<'static>>,
    stored: Stored<'_>,
    column: &mut Vec<u8>,
) -> Result<(), DecodeError> {
    column.clear();
    if stored.bytes.len() == stored.len {
        column.extend_from_slice(stored.bytes);
        return Ok(());
    }
    let zstd = match zstd {
        Some(zstd) => zstd,
        None => zstd.insert(zstd::bulk::Decompressor::new().map_err(DecodeError::Io)?),
    };
    column.reserve(stored.len);
    match zstd.decompress_to_buffer(stored.bytes, column) {
        Ok(length) if length == stored.len => Ok(()),
        _ => Err(DecodeError::Malformed("compressed column")),
    }
}
