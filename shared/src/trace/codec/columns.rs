//! Columns: runs of bytes that are compressed one by one.
//!
//! ```text
//! for each column: length varint | stored length varint
//! for each column: its bytes, as a zstd frame where the two lengths differ
//! ```

use super::varint;
use crate::trace::encode::Compress;

/// The columns of codec 1, by their place.
pub mod column {
    /// One byte a record: [`crate::trace::codec::op`].
    pub const OP: usize = 0;
    /// Frees: allocations since theirs. Varints, as everything but `OP`, `UNNAMED` and `OTHER`.
    pub const AGO: usize = 1;
    /// Frees: difference to the allocation of the block ended last, folded.
    pub const STEP: usize = 2;
    /// Addresses that end: difference to the one before, folded.
    pub const FREE: usize = 3;
    /// Addresses that start: difference to the end of the block before that was not predicted, folded.
    pub const MISS: usize = 4;
    /// Addresses that start: which of the freed blocks of unseen allocations. Bytes.
    pub const UNNAMED: usize = 5;
    /// Sizes.
    pub const SIZE: usize = 6;
    /// Stacks: difference to the one before, folded.
    pub const STACK: usize = 7;
    /// Times of records that start blocks and of others: difference to the record before.
    pub const START_TIME: usize = 8;
    /// Times of records that end blocks.
    pub const END_TIME: usize = 9;
    /// Stack nodes: their pc, difference to the one before, folded.
    pub const NODE_PC: usize = 10;
    /// Their id: difference to one more than that of the one before, folded.
    pub const NODE_ID: usize = 11;
    /// Their parent: difference to one less than their id, folded.
    pub const NODE_PARENT: usize = 12;
    /// Words of records that have no other place, little-endian.
    pub const OTHER: usize = 13;
    /// Number of columns.
    pub const COUNT: usize = 14;
}

/// Shorter columns are not worth compressing.
const MIN_COMPRESSED: usize = 24;

/// All columns of a block.
pub type Columns = [Vec<u8>; column::COUNT];

/// Appends `columns` to `out`; `packed` is scratch.
pub fn write<C: Compress + ?Sized>(
    columns: &Columns,
    compress: &mut C,
    packed: &mut Vec<u8>,
    out: &mut Vec<u8>,
) {
    packed.clear();
    for column in columns {
        let start = packed.len();
        let shrunk = column.len() >= MIN_COMPRESSED
            && compress.compress(column, packed)
            && packed.len().wrapping_sub(start) < column.len();
        if !shrunk {
            packed.truncate(start);
            packed.extend_from_slice(column);
        }
        varint::put(out, column.len() as u64);
        varint::put(out, packed.len().saturating_sub(start) as u64);
    }
    out.extend_from_slice(packed);
}

/// One column as it is stored.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stored<'a> {
    /// Its length.
    pub len: usize,
    /// The bytes; compressed if they are fewer than `len`.
    pub bytes: &'a [u8],
}

/// Finds the columns in a payload. `limit` is the most that all of them may be long together.
#[must_use]
pub fn read(mut payload: &[u8], limit: usize) -> Option<[Stored<'_>; column::COUNT]> {
    let mut lengths = [(0, 0); column::COUNT];
    let mut total = 0usize;
    for (len, stored) in &mut lengths {
        *len = usize::try_from(varint::take(&mut payload)?).ok()?;
        *stored = usize::try_from(varint::take(&mut payload)?).ok()?;
        total = total.checked_add(*len)?;
        if total > limit || stored > len {
            return None;
        }
    }
    let mut columns = [Stored::default(); column::COUNT];
    for (column, (len, stored)) in columns.iter_mut().zip(lengths) {
        let bytes;
        (bytes, payload) = payload.split_at_checked(stored)?;
        *column = Stored { len, bytes };
    }
    payload.is_empty().then_some(columns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::encode::Uncompressed;

    #[test]
    fn columns_come_back() {
        let mut columns = Columns::default();
        for (i, column) in columns.iter_mut().enumerate() {
            column.resize(i * 20, i as u8);
        }
        let (mut packed, mut out) = (Vec::new(), Vec::new());
        write(&columns, &mut Uncompressed, &mut packed, &mut out);
        let limit = columns.iter().map(Vec::len).sum();
        let read_back = read(&out, limit).unwrap();
        for (column, stored) in columns.iter().zip(read_back) {
            assert_eq!((stored.len, stored.bytes), (column.len(), &column[..]));
        }
        assert!(read(&out, limit - 1).is_none());
        for cut in 0..out.len() {
            assert!(read(&out[..cut], limit).is_none());
        }
        out.push(0);
        assert!(read(&out, limit).is_none());
    }
}
