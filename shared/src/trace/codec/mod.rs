//! Codecs: how the records of an `EVENTS` frame become bytes.
//!
//! A codec makes bytes of one block of records: some 10,000 to 100,000 of one stream, one after the other.
//! Blocks are self-contained: no codec carries state from one frame to the next.
//!
//! Codec 1 splits the records into [`columns`], so that like stands by like and each column can be
//! compressed on its own. Most of an event is predicted:
//!
//! * A free names its allocation by how many allocations ago it was, so it needs no address.
//! * An allocation's address is looked for among the blocks of its size class that were freed last
//!   ([`predict`]); allocators hand them out again, last in, first out.
//! * Times and stacks are differences.
//!
//! [`split`] is the way there, [`join`] the way back; [`op`] lists what the two have to say to each
//! other about each record.

pub mod columns;
pub mod join;
pub mod op;
pub mod predict;
pub mod split;
pub mod varint;

/// Codec 0: the records' words as they are, little-endian. For what codec 1 cannot hold.
pub const ROWS: u8 = 0;
/// Codec 1: columns; a free names its allocation, addresses are predicted.
pub const COLUMNS: u8 = 1;

/// Most words in one block. The encoder makes several blocks of longer input.
pub const MAX_BLOCK_WORDS: usize = 1 << 20;

const _: () = assert!((MAX_BLOCK_WORDS + crate::record::MAX_WORDS) * 8 <= super::frame::MAX_PAYLOAD_BYTES);
