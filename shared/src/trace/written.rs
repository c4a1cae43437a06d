//! What a trace holds of each stream: for whoever goes on writing it.

use std::collections::BTreeMap;

use super::frame::{FRAME_HEADER_BYTES, FrameHeader, Kind};

/// Position behind the last word of each stream in the trace.
#[derive(Clone, Debug, Default)]
pub struct Written {
    /// By stream number, which in a damaged trace may be any.
    ends: BTreeMap<u32, u64>,
}

/// A run of pieces that goes on where the trace ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Position of the first word that is not in the trace.
    pub start: u64,
    /// Position behind the last.
    pub end: u64,
    /// How many pieces belong to it.
    pub pieces: usize,
}

impl Written {
    /// Nothing written yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { ends: BTreeMap::new() }
    }

    /// Where a stream ends in the trace.
    #[must_use]
    pub fn end(&self, stream: u32) -> u64 {
        self.ends.get(&stream).copied().unwrap_or(0)
    }

    /// Notes that a stream's words up to `end` are in the trace.
    pub fn reach(&mut self, stream: u32, end: u64) {
        let known = self.ends.entry(stream).or_default();
        *known = end.max(*known);
    }

    /// Of pieces of one stream (position and words, in order), those that follow each other without a gap, and into
    /// `parts` what of them the trace lacks. A thread that moved to another buffer copied words that may be there
    /// already.
    pub fn run<'a>(
        &self,
        stream: u32,
        pieces: impl IntoIterator<Item = (u64, &'a [u64])>,
        parts: &mut [&'a [u64]],
    ) -> Run {
        let mut pieces = pieces.into_iter().peekable();
        let start = self.end(stream).max(pieces.peek().map_or(0, |first| first.0));
        let mut run = Run { start, end: start, pieces: 0 };
        for ((position, words), part) in pieces.zip(parts) {
            if position > run.end {
                break;
            }
            let known = usize::try_from(run.end - position).unwrap_or(usize::MAX).min(words.len());
            *part = &words[known..];
            run.end += part.len() as u64;
            run.pieces += 1;
        }
        run
    }

    /// Goes over the frames that somebody else has written from `offset` on, in a file of `len` bytes, and notes what they
    /// hold; gives the offset behind the last whole one, and the number of records. Only the last may be torn:
    /// `None` where no header stands in another place. `read` reads one.
    pub fn follow(
        &mut self,
        mut offset: u64,
        len: u64,
        mut read: impl FnMut(u64) -> Option<[u8; FRAME_HEADER_BYTES]>,
    ) -> Option<(u64, u64)> {
        let mut records = 0;
        while offset + FRAME_HEADER_BYTES as u64 <= len {
            let header = FrameHeader::from_bytes(&read(offset)?)?;
            if offset + FRAME_HEADER_BYTES as u64 + u64::from(header.stored_len) > len {
                break;
            }
            if header.kind == Kind::EVENTS {
                self.reach(header.stream, header.position.saturating_add(header.words()));
                records += u64::from(header.records);
            }
            offset += header.total_bytes();
        }
        Some((offset, records))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_go_on_where_the_trace_ends() {
        let words: Vec<u64> = (0..30).collect();
        let mut written = Written::new();
        written.reach(2, 15);
        written.reach(2, 7);
        assert_eq!((written.end(2), written.end(1), written.end(9)), (15, 0, 0));
        let mut parts: [&[u64]; 4] = [&[]; 4];
        let pieces = [(0, &words[..10]), (10, &words[10..20]), (20, &words[20..25]), (26, &words[26..])];
        let run = written.run(2, pieces, &mut parts);
        assert_eq!(run, Run { start: 15, end: 25, pieces: 3 });
        assert_eq!(parts[..3], [&words[10..10], &words[15..20], &words[20..25]]);
        assert_eq!(written.run(2, [], &mut parts), Run { start: 15, end: 15, pieces: 0 });
        assert_eq!(written.run(3, [(4, &words[..2])], &mut parts), Run { start: 4, end: 6, pieces: 1 });
    }

    #[test]
    fn frames_are_followed_to_the_torn_one() {
        let mut file = Vec::new();
        for (stream, position, words) in [(1, 0, 6), (1, 6, 4), (4, 100, 1)] {
            let payload = vec![0; words * 8];
            let header = FrameHeader {
                stream,
                position,
                records: 2,
                raw_len: payload.len() as u32,
                stored_len: payload.len() as u32,
                ..FrameHeader::new(Kind::EVENTS)
            };
            file.extend(header.to_bytes());
            file.extend(payload);
        }
        let at = |file: &[u8]| {
            let mut written = Written::new();
            let read = |offset: u64| file.get(offset as usize..)?.first_chunk().copied();
            let followed = written.follow(0, file.len() as u64, read);
            followed.map(|(offset, records)| (offset, records, written.end(1), written.end(4)))
        };
        let whole = file.len() as u64;
        assert_eq!(at(&file), Some((whole, 6, 10, 101)));
        for cut in [1, 8, 71] {
            assert_eq!(at(&file[..file.len() - cut]), Some((whole - 72, 4, 10, 0)), "{cut}");
        }
        assert_eq!(at(&[]), Some((0, 0, 0, 0)));
        file[120] ^= 1;
        assert_eq!(at(&file), None, "damage in the middle");
    }
}
