//! Codecs: how the records of an `EVENTS` frame become bytes.
//!
//! A codec splits the records of one block into columns of bytes, so that like stands by like, and
//! each column is compressed on its own. Blocks are self-contained: no codec carries state from one
//! frame to the next.

pub mod named;
pub mod varint;

/// Codec 0: the records' words as they are, little-endian. For everything that no other codec can hold.
pub const ROWS: u8 = 0;
/// Codec 1: columns; addresses as differences.
pub const COLUMNS: u8 = 1;
/// Codec 2: columns; a free names its allocation, addresses are predicted.
pub const NAMED: u8 = 2;

/// Most words that one block holds; the encoder makes more blocks of longer input.
pub const MAX_BLOCK_WORDS: usize = super::frame::MAX_PAYLOAD_BYTES / 8;
