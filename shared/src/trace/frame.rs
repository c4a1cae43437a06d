//! Headers: that of the file and that of each frame.
//!
//! ```text
//! 0        64                          +64           +stored, padded to 8
//! +--------+---------------------------+-------------+----------------- ...
//! | file   | frame header              | payload     | frame header
//! +--------+---------------------------+-------------+----------------- ...
//! ```
//!
//! Every frame starts at a multiple of 8 bytes and every header has a checksum of its own, so a
//! reader that met damage finds the next whole frame by looking for [`FRAME_MAGIC`] at such places.

/// First bytes of a trace.
pub const FILE_MAGIC: [u8; 8] = *b"MEMTRACE";
/// Version of the format. A reader refuses others; what can be skipped (kinds of frames, tags, kinds
/// of records) is added without a new version.
pub const VERSION: u32 = 1;
/// Size of the file header.
pub const FILE_HEADER_BYTES: usize = 64;
/// First bytes of a frame.
pub const FRAME_MAGIC: [u8; 4] = [0xf5, b'M', b'F', 0x9e];
/// Size of a frame's header.
pub const FRAME_HEADER_BYTES: usize = 64;
/// Alignment of frames in the file.
pub const FRAME_ALIGN: usize = 8;
/// Most bytes that a frame's payload has, stored or decoded.
pub const MAX_PAYLOAD_BYTES: usize = 16 << 20;

/// Flag of an `EVENTS` frame: no record in it is of a kind from `NODE` on. So who looks for stacks, threads
/// and modules may leave it out.
pub const FLAG_PLAIN: u8 = 1;

/// What a frame holds. Numbers that are not listed here are skipped by readers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Kind(pub u16);

impl Kind {
    /// The process image; the first frame of every trace.
    pub const PROCESS: Self = Self(1);
    /// Records of one stream.
    pub const EVENTS: Self = Self(2);
    /// Readings of the clocks.
    pub const CLOCK: Self = Self(3);
    /// Readings of the resident set.
    pub const MEMORY: Self = Self(4);
    /// Names of threads.
    pub const NAMES: Self = Self(5);
    /// How the process image ended; the last frame of a finished trace.
    pub const END: Self = Self(6);
    /// A remark as text.
    pub const NOTE: Self = Self(7);
}

/// The header of a frame.
///
/// ```text
///  0 magic u32 | 4 kind u16 | 6 codec u8 | 7 flags u8
///  8 stream u32            | 12 thread u32
/// 16 position u64
/// 24 first stamp u64
/// 32 last stamp u64
/// 40 records u32           | 44 unit u32
/// 48 raw length u32        | 52 stored length u32
/// 56 checksum of payload   | 60 checksum of bytes 0 to 59
/// ```
///
/// Numbers are little-endian, checksums CRC-32 (IEEE).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// What the payload is.
    pub kind: Kind,
    /// How the payload is encoded; see [`crate::trace::codec`].
    pub codec: u8,
    /// [`FLAG_PLAIN`]; other bits are 0, and readers ignore them.
    pub flags: u8,
    /// The stream that the records belong to; 0 where there are none.
    pub stream: u32,
    /// Number of the thread that wrote the stream; 0 where there are no records.
    pub thread: u32,
    /// Position in the stream of the first word, in words.
    pub position: u64,
    /// First stamp in the frame.
    pub first_stamp: u64,
    /// Last stamp in the frame.
    pub last_stamp: u64,
    /// Number of records (of `EVENTS`) or items.
    pub records: u32,
    /// Stamps of records were rounded down to a multiple of this; 0 and 1: they are exact.
    pub unit: u32,
    /// Length of the decoded payload in bytes.
    pub raw_len: u32,
    /// Length of the payload in the file in bytes, without padding.
    pub stored_len: u32,
    /// Checksum of the payload as stored.
    pub payload_crc: u32,
}

impl FrameHeader {
    /// A header of `kind` with everything else 0.
    #[must_use]
    pub const fn new(kind: Kind) -> Self {
        Self {
            kind,
            codec: 0,
            flags: 0,
            stream: 0,
            thread: 0,
            position: 0,
            first_stamp: 0,
            last_stamp: 0,
            records: 0,
            unit: 0,
            raw_len: 0,
            stored_len: 0,
            payload_crc: 0,
        }
    }

    /// The bytes, with their checksum.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; FRAME_HEADER_BYTES] {
        let mut b = [0; FRAME_HEADER_BYTES];
        b[0..4].copy_from_slice(&FRAME_MAGIC);
        b[4..6].copy_from_slice(&self.kind.0.to_le_bytes());
        b[6] = self.codec;
        b[7] = self.flags;
        b[8..12].copy_from_slice(&self.stream.to_le_bytes());
        b[12..16].copy_from_slice(&self.thread.to_le_bytes());
        b[16..24].copy_from_slice(&self.position.to_le_bytes());
        b[24..32].copy_from_slice(&self.first_stamp.to_le_bytes());
        b[32..40].copy_from_slice(&self.last_stamp.to_le_bytes());
        b[40..44].copy_from_slice(&self.records.to_le_bytes());
        b[44..48].copy_from_slice(&self.unit.to_le_bytes());
        b[48..52].copy_from_slice(&self.raw_len.to_le_bytes());
        b[52..56].copy_from_slice(&self.stored_len.to_le_bytes());
        b[56..60].copy_from_slice(&self.payload_crc.to_le_bytes());
        let crc = crc32fast::hash(&b[..60]);
        b[60..64].copy_from_slice(&crc.to_le_bytes());
        b
    }

    /// Reads a header; `None` where `bytes` hold none, or a damaged one.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let b: &[u8; FRAME_HEADER_BYTES] = bytes.get(..FRAME_HEADER_BYTES)?.try_into().ok()?;
        if b[0..4] != FRAME_MAGIC || crc32fast::hash(&b[..60]) != u32_at(b, 60) {
            return None;
        }
        Some(Self {
            kind: Kind(u16::from_le_bytes([b[4], b[5]])),
            codec: b[6],
            flags: b[7],
            stream: u32_at(b, 8),
            thread: u32_at(b, 12),
            position: u64_at(b, 16),
            first_stamp: u64_at(b, 24),
            last_stamp: u64_at(b, 32),
            records: u32_at(b, 40),
            unit: u32_at(b, 44),
            raw_len: u32_at(b, 48),
            stored_len: u32_at(b, 52),
            payload_crc: u32_at(b, 56),
        })
    }

    /// Bytes that the whole frame takes in the file, padding included.
    #[must_use]
    pub const fn total_bytes(&self) -> u64 {
        FRAME_HEADER_BYTES as u64 + (self.stored_len as u64).next_multiple_of(FRAME_ALIGN as u64)
    }

    /// Words that the decoded records take, of an `EVENTS` frame.
    #[must_use]
    pub const fn words(&self) -> u64 {
        (self.raw_len / 8) as u64
    }
}

/// The `u32` at `at`, or 0 where the bytes are too few.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}

/// The `u64` at `at`, or 0 where the bytes are too few.
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
}

/// The file header: magic, version u32, its own size u32, zeros, checksum of the 60 bytes before.
#[must_use]
pub fn file_header() -> [u8; FILE_HEADER_BYTES] {
    let mut b = [0; FILE_HEADER_BYTES];
    b[0..8].copy_from_slice(&FILE_MAGIC);
    b[8..12].copy_from_slice(&VERSION.to_le_bytes());
    b[12..16].copy_from_slice(&(FILE_HEADER_BYTES as u32).to_le_bytes());
    let crc = crc32fast::hash(&b[..60]);
    b[60..64].copy_from_slice(&crc.to_le_bytes());
    b
}

/// Where a frame that is being appended to a buffer starts.
///
/// The payload goes straight behind it; the header is filled in last, when length and checksum are
/// known.
#[derive(Debug)]
pub struct OpenFrame {
    start: usize,
}

impl OpenFrame {
    /// Leaves room for the header at the end of `out`.
    #[must_use]
    pub fn begin(out: &mut Vec<u8>) -> Self {
        let start = out.len();
        out.resize(start + FRAME_HEADER_BYTES, 0);
        Self { start }
    }

    /// Offset in `out` of the payload.
    #[must_use]
    pub const fn payload(&self) -> usize {
        self.start + FRAME_HEADER_BYTES
    }

    /// Fills in the header, with the payload's stored length and checksum, and pads the frame.
    pub fn finish(self, out: &mut Vec<u8>, mut header: FrameHeader) {
        let payload = &out[self.payload()..];
        header.stored_len = payload.len() as u32;
        header.payload_crc = crc32fast::hash(payload);
        out[self.start..self.start + FRAME_HEADER_BYTES].copy_from_slice(&header.to_bytes());
        let end = self.start + header.total_bytes() as usize;
        out.resize(end, 0);
    }

    /// Takes the frame back.
    pub fn abandon(self, out: &mut Vec<u8>) {
        out.truncate(self.start);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> FrameHeader {
        FrameHeader {
            kind: Kind::EVENTS,
            codec: 2,
            flags: 0,
            stream: 7,
            thread: 3,
            position: 1 << 40,
            first_stamp: 11,
            last_stamp: u64::MAX,
            records: 12,
            unit: 26,
            raw_len: 4096,
            stored_len: 77,
            payload_crc: 0xdead_beef,
        }
    }

    #[test]
    fn header_comes_back() {
        let header = sample();
        assert_eq!(FrameHeader::from_bytes(&header.to_bytes()), Some(header));
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let bytes = sample().to_bytes();
        for bit in 0..FRAME_HEADER_BYTES * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(FrameHeader::from_bytes(&damaged), None, "bit {bit}");
        }
        assert_eq!(FrameHeader::from_bytes(&bytes[..63]), None);
    }

    #[test]
    fn frames_are_padded() {
        for len in 0..20 {
            let mut out = vec![1; 16];
            let frame = OpenFrame::begin(&mut out);
            out.resize(out.len() + len, 0xaa);
            frame.finish(&mut out, FrameHeader::new(Kind::NOTE));
            assert_eq!(out.len() % FRAME_ALIGN, 0);
            let header = FrameHeader::from_bytes(&out[16..]).unwrap();
            assert_eq!(header.stored_len as usize, len);
            assert_eq!(out.len() as u64, 16 + header.total_bytes());
        }
    }
}
