//! What a spool holds and a trace does not: the records in between.

use std::collections::BTreeMap;
use std::io;

use super::encode::{Block, Compress, Encoder, Uncompressed};
use super::frame::Kind;
use super::pack::Zstd;
use super::read::TraceFile;
use super::streams::Gap;
use crate::record::{Records, is_call, stamp_of};
use crate::spool::read::{SpoolBuffer, SpoolFile};

/// Words that are gathered for one frame.
const BLOCK_WORDS: usize = 1 << 17;

/// What came out of a spool.
#[derive(Debug, Default)]
pub(super) struct Salvage {
    /// Records.
    pub records: u64,
    /// Calls among them.
    pub calls: u64,
    /// Last stamp among them.
    pub last_stamp: u64,
    /// Buffers with words that make no record.
    pub malformed: u64,
    /// Last stamp before the first such buffer's damage.
    pub malformed_after: u64,
    /// Buffers that the process had, and the file has no more.
    pub buffers_missing: u64,
    /// Calls that could not be brought in, because the trace takes no more.
    pub unwritten: u64,
    /// Positions that were brought in, and gaps in front of them.
    added: Vec<(u32, u64, u64)>,
    gaps: Vec<Gap>,
}

impl Salvage {
    /// Words that neither trace nor spool has.
    pub fn gaps<'a>(&'a self, trace: &'a TraceFile) -> impl Iterator<Item = Gap> + 'a {
        let old = trace.gaps().iter().copied().flat_map(|gap| self.unfilled(gap));
        old.chain(self.gaps.iter().copied())
    }

    /// The parts of a gap of the trace that were not brought in.
    fn unfilled(&self, gap: Gap) -> Vec<Gap> {
        let mut rest = Vec::new();
        let mut from = gap.from;
        for &(_, start, end) in self.added.iter().filter(|&&(stream, ..)| stream == gap.stream) {
            if start > from && start < gap.to {
                rest.push(Gap { from, to: start, ..gap });
            }
            if start < gap.to {
                from = from.max(end);
            }
        }
        if from < gap.to {
            rest.push(Gap { from, ..gap });
        }
        rest
    }
}

/// The stretches of one stream that the trace holds, by position, and the stamp at which each ends.
type Covered = Vec<(u64, u64, u64)>;

/// Encodes what `spool` holds beyond `trace` and hands the frames to `append`, which may say stop.
pub(super) fn salvage(
    trace: &TraceFile,
    spool: &SpoolFile,
    mut append: impl FnMut(&[u8]) -> bool,
) -> io::Result<Salvage> {
    let mut streams: BTreeMap<u32, Vec<SpoolBuffer>> = BTreeMap::new();
    for buffer in spool.buffers()? {
        streams.entry(buffer.stream).or_default().push(buffer);
    }
    let mut encoder = Encoder::new();
    let unit = trace.frames().iter().filter(|f| f.header.kind == Kind::EVENTS).map(|f| f.header.unit).max();
    encoder.set_unit(unit.unwrap_or(1));
    let mut zstd = Zstd::new();
    let mut plain = Uncompressed;
    let mut gathering = Gathering {
        encoder,
        compress: match &mut zstd {
            Some(zstd) => zstd,
            None => &mut plain,
        },
        block: Block { stream: 0, thread: 0, position: 0 },
        words: Vec::new(),
        frames: Vec::new(),
        append: &mut append,
        stopped: false,
        unwritten: 0,
        unwritten_records: 0,
    };
    let buffers_missing = spool.header().buffers.saturating_sub(spool.buffers_in_file());
    let mut salvage = Salvage { buffers_missing, ..Salvage::default() };
    for (stream, mut buffers) in streams {
        buffers.sort_by_key(|b| (b.position, b.index));
        take_stream(&mut salvage, &mut gathering, spool, &buffers, covered(trace, stream))?;
        gathering.flush();
    }
    salvage.unwritten = gathering.unwritten;
    salvage.records -= gathering.unwritten_records;
    Ok(salvage)
}

fn covered(trace: &TraceFile, stream: u32) -> Covered {
    let index = trace.streams().iter().find(|s| s.stream == stream);
    let mut covered: Covered = Vec::new();
    for &frame in index.map_or(&[][..], |s| &s.frames) {
        let header = &trace.frames()[frame].header;
        let end = header.position.saturating_add(header.words());
        match covered.last_mut() {
            Some(last) if last.1 == header.position => {
                (last.1, last.2) = (end, header.last_stamp.max(last.2))
            }
            _ => covered.push((header.position, end, header.last_stamp)),
        }
    }
    covered
}

/// Goes through the buffers of one stream in order.
fn take_stream(
    salvage: &mut Salvage,
    gathering: &mut Gathering<'_>,
    spool: &SpoolFile,
    buffers: &[SpoolBuffer],
    covered: Covered,
) -> io::Result<()> {
    // Gaps in front of the trace's own end are in its own list.
    let tail = covered.last().map_or(0, |c| c.1);
    let (mut words, mut end, mut stamp) = (Vec::new(), 0, 0);
    for buffer in buffers {
        spool.read_words(buffer, &mut words)?;
        let mut records = Records::new(&words);
        let mut position = buffer.position;
        for record in &mut records {
            let next = position + record.len() as u64;
            let known = stretch_at(&covered, position);
            if let Some((_, _, last)) = known {
                stamp = last.max(stamp);
                end = end.max(next);
            } else if position >= end {
                let known_end = end.max(tail);
                if position > known_end {
                    let after_stamp = stamp.max(stamp_before(&covered, position));
                    let stream = buffer.stream;
                    salvage.gaps.push(Gap {
                        stream,
                        from: known_end,
                        to: position,
                        after_stamp,
                        before_stamp: 0,
                    });
                }
                stamp = stamp_of(record).unwrap_or(stamp);
                gathering.add(buffer, position, record, salvage);
                salvage.last_stamp = salvage.last_stamp.max(stamp);
                end = next;
            }
            position = next;
        }
        if !records.rest().is_empty() {
            salvage.malformed_after =
                if salvage.malformed == 0 { stamp } else { salvage.malformed_after.min(stamp) };
            salvage.malformed += 1;
        }
    }
    Ok(())
}

/// Last stamp that the trace holds in front of `position`.
fn stamp_before(covered: &Covered, position: u64) -> u64 {
    let before = covered.partition_point(|c| c.1 <= position);
    before.checked_sub(1).map_or(0, |i| covered[i].2)
}

fn stretch_at(covered: &Covered, position: u64) -> Option<(u64, u64, u64)> {
    let i = covered.partition_point(|c| c.0 <= position).checked_sub(1)?;
    Some(covered[i]).filter(|c| position < c.1)
}

/// Gathers records that follow each other, and makes frames of them.
struct Gathering<'a> {
    encoder: Encoder,
    compress: &'a mut dyn Compress,
    block: Block,
    words: Vec<u64>,
    frames: Vec<u8>,
    append: &'a mut dyn FnMut(&[u8]) -> bool,
    stopped: bool,
    unwritten: u64,
    unwritten_records: u64,
}

impl Gathering<'_> {
    fn add(&mut self, buffer: &SpoolBuffer, position: u64, record: &[u64], salvage: &mut Salvage) {
        let follows = self.block.stream == buffer.stream
            && self.block.position + self.words.len() as u64 == position
            && self.words.len() < BLOCK_WORDS;
        if !follows {
            self.flush();
            self.block = Block { stream: buffer.stream, thread: buffer.thread, position };
        }
        self.words.extend_from_slice(record);
        salvage.records += 1;
        salvage.calls += u64::from(is_call(record[0]));
        let end = position + record.len() as u64;
        match salvage.added.last_mut() {
            Some(last) if last.0 == buffer.stream && last.2 == position => last.2 = end,
            _ => salvage.added.push((buffer.stream, position, end)),
        }
    }

    fn flush(&mut self) {
        if self.words.is_empty() {
            return;
        }
        if !self.stopped {
            self.frames.clear();
            self.encoder.encode(self.compress, self.block, &self.words, &mut self.frames);
            self.stopped = !(self.append)(&self.frames);
        }
        if self.stopped {
            for record in &mut Records::new(&self.words) {
                self.unwritten += u64::from(is_call(record[0]));
                self.unwritten_records += 1;
            }
        }
        self.words.clear();
    }
}
