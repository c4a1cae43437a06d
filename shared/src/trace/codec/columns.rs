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

/// Columns in which looking for repetitions costs much and finds little.
const NOISE: [usize; 4] = [column::FREE, column::MISS, column::START_TIME, column::END_TIME];

/// Shorter columns are not worth compressing.
const MIN_COMPRESSED: usize = 24;

/// A column that grows. Numbers are written into room that is there already.
#[derive(Clone, Debug, Default)]
pub struct Column {
    /// What was written, and room behind it.
    bytes: Vec<u8>,
    /// Less than 4 GiB, and narrow so that a little more is known not to overflow: one check serves a number's room.
    len: u32,
}

impl Column {
    /// Empties it; its memory stays.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// What was written.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len as usize]
    }

    /// The place behind what was written, with room for so many bytes.
    fn room(&mut self, wanted: usize) -> &mut [u8] {
        let len = self.len as usize;
        if self.bytes.len() < len + wanted {
            let more = self.bytes.len().max(wanted).max(256);
            self.bytes.resize(self.bytes.len() + more, 0);
        }
        &mut self.bytes[len..]
    }

    /// Appends a byte.
    #[inline(always)]
    pub fn push(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.len as usize) {
            *place = byte;
            self.len += 1;
        } else {
            self.extend(&[byte]);
        }
    }

    /// Appends a number if it takes one byte, and there is room for that: for columns where nearly all do.
    #[inline(always)]
    #[must_use]
    pub fn put_byte(&mut self, value: u64) -> bool {
        if value < 0x80
            && let Some(place) = self.bytes.get_mut(self.len as usize)
        {
            *place = value as u8;
            self.len += 1;
            return true;
        }
        false
    }

    /// Appends a number.
    #[inline(always)]
    pub fn put(&mut self, value: u64) {
        let len = self.len as usize;
        if value >> 14 == 0
            && let Some(room) = self.bytes.get_mut(len..len + 2)
        {
            // One or two bytes, without a branch between them.
            let high = value as u16 & 0x3f80;
            let two = u16::from(high != 0);
            // The upper seven bits move by one.
            room.copy_from_slice(&((value as u16 + high) | two << 7).to_le_bytes());
            self.len += 1 + u32::from(two);
        } else {
            self.put_long(value);
        }
    }

    #[inline(never)]
    fn put_long(&mut self, value: u64) {
        self.len += varint::put_at(self.room(varint::MAX_BYTES), value) as u32;
    }

    /// Appends bytes.
    #[inline(never)]
    pub fn extend(&mut self, bytes: &[u8]) {
        self.room(bytes.len())[..bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len() as u32;
    }
}

/// Reads a column from its front.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// What was not yet read.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.bytes
    }

    /// Takes a byte.
    #[inline(always)]
    pub fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.bytes.split_first()?;
        self.bytes = rest;
        Some(first)
    }

    /// Takes a number that is mostly less than 128.
    #[inline(always)]
    pub fn small(&mut self) -> Option<u64> {
        match self.bytes.split_first() {
            Some((&first, rest)) if first < 0x80 => {
                self.bytes = rest;
                Some(u64::from(first))
            }
            _ => self.number(),
        }
    }

    /// Takes a number.
    #[inline(always)]
    pub fn number(&mut self) -> Option<u64> {
        if let Some(&bytes) = self.bytes.first_chunk::<4>()
            && let Some((value, len)) = varint::gather(u32::from_le_bytes(bytes))
        {
            self.bytes = &self.bytes[len..];
            return Some(u64::from(value));
        }
        self.long()
    }

    #[inline(never)]
    fn long(&mut self) -> Option<u64> {
        varint::take(&mut self.bytes)
    }

    /// A little-endian word `at` words ahead, without taking it.
    #[inline]
    #[must_use]
    pub fn word(&self, at: usize) -> Option<u64> {
        let bytes = self.bytes.get(at * 8..at * 8 + 8)?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    }

    /// Skips `words` words, or to the end.
    pub fn skip_words(&mut self, words: usize) {
        self.bytes = self.bytes.get(words * 8..).unwrap_or(&[]);
    }
}

/// All columns of a block.
pub type Columns = [Column; column::COUNT];

/// Appends `columns` to `out`; `packed` is scratch.
pub fn write<C: Compress + ?Sized>(
    columns: &Columns,
    compress: &mut C,
    packed: &mut Vec<u8>,
    out: &mut Vec<u8>,
) {
    packed.clear();
    for (number, column) in columns.iter().map(Column::as_slice).enumerate() {
        let start = packed.len();
        let mut compressed = || {
            if NOISE.contains(&number) {
                compress.compress_noise(column, packed)
            } else {
                compress.compress(column, packed)
            }
        };
        let shrunk =
            column.len() >= MIN_COMPRESSED && compressed() && packed.len().wrapping_sub(start) < column.len();
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
    fn what_is_written_is_read() {
        let mut rng = crate::trace::testing::Rng(6);
        for _ in 0..200 {
            let (mut column, mut numbers) = (Column::default(), Vec::new());
            for _ in 0..rng.below(3000) {
                let number = rng.any();
                numbers.push(number);
                column.put(number);
                if number & 3 == 0 {
                    column.push(number as u8);
                } else if number & 7 == 1 {
                    column.extend(&number.to_le_bytes());
                }
            }
            let mut reader = Reader::new(column.as_slice());
            for number in numbers {
                assert_eq!(reader.number(), Some(number));
                if number & 3 == 0 {
                    assert_eq!(reader.byte(), Some(number as u8));
                } else if number & 7 == 1 {
                    assert_eq!(reader.word(0), Some(number));
                    reader.skip_words(1);
                }
            }
            assert!(reader.rest().is_empty());
            assert_eq!((reader.number(), reader.byte(), reader.word(0)), (None, None, None));
        }
    }

    #[test]
    fn columns_come_back() {
        let mut columns = Columns::default();
        for (i, column) in columns.iter_mut().enumerate() {
            column.extend(&vec![i as u8; i * 20]);
        }
        let (mut packed, mut out) = (Vec::new(), Vec::new());
        write(&columns, &mut Uncompressed, &mut packed, &mut out);
        let limit = columns.iter().map(|column| column.as_slice().len()).sum();
        let read_back = read(&out, limit).unwrap();
        for (column, stored) in columns.iter().zip(read_back) {
            assert_eq!((stored.len, stored.bytes), (column.as_slice().len(), column.as_slice()));
        }
        assert!(read(&out, limit - 1).is_none());
        for cut in 0..out.len() {
            assert!(read(&out[..cut], limit).is_none());
        }
        out.push(0);
        assert!(read(&out, limit).is_none());
    }
}
