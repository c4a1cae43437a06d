//! What the tests of several modules share.

use std::io::Write;

use super::source::MemorySource;
use super::{Options, ProcessAnalysis, Wanted, analyze};
use crate::record::{Records, head, kind, thread_operand};
use crate::trace::encode::{Block, Encoder};
use crate::trace::{ClockSample, End, EndKind, MemorySample, Process, ThreadName, Zstd, frame, meta};

/// Random numbers that are the same in each run (splitmix64).
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// Words of a stream, record by record.
#[derive(Clone, Debug, Default)]
pub struct Words(pub Vec<u64>);

impl Words {
    pub fn new() -> Self {
        Self::default()
    }

    fn put(mut self, kind: u8, operand: u64, words: &[u64]) -> Self {
        self.0.push(head(kind, operand));
        self.0.extend_from_slice(words);
        self
    }

    fn sized(self, small: u8, large: u8, address: u64, stamp: u64, stack: u32, size: u64) -> Self {
        let stack = u64::from(stack) << 32;
        if size < 1 << 32 {
            self.put(small, address, &[stamp, stack | size])
        } else {
            self.put(large, address, &[stamp, stack, size])
        }
    }

    pub fn alloc(self, address: u64, stamp: u64, stack: u32, size: u64) -> Self {
        self.sized(kind::ALLOC, kind::ALLOC_LARGE, address, stamp, stack, size)
    }

    pub fn moved(self, address: u64, stamp: u64, stack: u32, size: u64) -> Self {
        self.sized(kind::REALLOC_MOVED, kind::REALLOC_MOVED_LARGE, address, stamp, stack, size)
    }

    pub fn free(self, address: u64, stamp: u64) -> Self {
        self.put(kind::FREE, address, &[stamp])
    }

    pub fn begin(self, address: u64, stamp: u64) -> Self {
        self.put(kind::REALLOC_BEGIN, address, &[stamp])
    }

    pub fn freed(self, address: u64, stamp: u64) -> Self {
        self.put(kind::REALLOC_FREED, address, &[stamp])
    }

    pub fn realloc_failed(self, address: u64, stamp: u64) -> Self {
        self.put(kind::REALLOC_FAILED, address, &[stamp])
    }

    pub fn failed(self, stamp: u64) -> Self {
        self.put(kind::FAILED, 0, &[stamp])
    }

    pub fn thread(self, kind: u8, number: u32, stamp: u64, name: &str) -> Self {
        let mut bytes = [0; 16];
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        let (low, high) = bytes.split_at(8);
        let word = |half: &[u8]| half.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte));
        self.put(kind, thread_operand(number, 1000 + number), &[stamp, word(low), word(high)])
    }

    pub fn module(mut self, generation: u32, start: u64, end: u64, path: &str) -> Self {
        let path = path.as_bytes();
        let module = crate::record::Module { generation, start, end, bias: start, build_id: &[1, 2], path };
        let at = self.0.len();
        self.0.resize(at + module.words(), 0);
        module.encode(|n, word| self.0[at + n] = word);
        self
    }

    pub fn gone(self, generation: u32, stamp: u64, start: u64) -> Self {
        self.put(kind::MODULES_GONE, u64::from(generation), &[stamp, start])
    }

    pub fn name(mut self, id: u32, name: &str) -> Self {
        let name = crate::record::Name { id, name: name.as_bytes(), type_name: b"T", scope: b"S" };
        let at = self.0.len();
        self.0.resize(at + name.words(), 0);
        name.encode(|n, word| self.0[at + n] = word);
        self
    }

    pub fn named(self, address: u64, stamp: u64, id: u32) -> Self {
        self.named_inside(address, stamp, id, 0)
    }

    pub fn named_inside(self, address: u64, stamp: u64, id: u32, reach: u64) -> Self {
        self.put(kind::NAMED, address, &[stamp, reach << 32 | u64::from(id)])
    }

    pub fn node(self, kind: u8, pc: u64, id: u32, parent: u32) -> Self {
        self.put(kind, pc, &[u64::from(id) << 32 | u64::from(parent)])
    }
}

/// A source with these streams, each of one block and with its index + 1 as its thread.
pub fn source(streams: &[Words]) -> MemorySource {
    let mut source = MemorySource::new();
    for (at, words) in streams.iter().enumerate() {
        source.push(at as u32 + 1, &[&words.0]);
    }
    source
}

/// A trace in the making. Stamps are ns of the monotonic clock; the epoch time of stamp 0 is [`EPOCH`].
pub struct TraceBuilder {
    pub process: Process,
    pub end: Option<End>,
    pub streams: Vec<(u32, Words)>,
    pub names: Vec<ThreadName>,
    pub memory: Vec<MemorySample>,
    /// Records for each frame.
    pub frame_records: usize,
    /// Frames to leave out, to damage: numbers in the order of writing.
    pub left_out: Vec<usize>,
    pub damaged: Vec<usize>,
}

/// Epoch time of stamp 0.
pub const EPOCH: u64 = 1_700_000_000_000_000_000;

impl TraceBuilder {
    /// Of a process that has ended with `exit(0)` at this stamp.
    pub fn new(end: u64) -> Self {
        let process = Process { pid: u32::MAX, start_ticks: 5, ..Process::default() };
        let end =
            End { kind: EndKind::Exit, exit_code: Some(0), stamp: end, complete: true, ..End::default() };
        Self {
            process,
            end: Some(end),
            streams: Vec::new(),
            names: Vec::new(),
            memory: Vec::new(),
            frame_records: 50,
            left_out: Vec::new(),
            damaged: Vec::new(),
        }
    }

    pub fn stream(mut self, thread: u32, words: Words) -> Self {
        self.streams.push((thread, words));
        self
    }

    pub fn name(mut self, thread: u32, stamp: u64, name: &str) -> Self {
        self.names.push(ThreadName { thread, stamp, name: name.into() });
        self
    }

    pub fn rss(mut self, stamp: u64, rss_bytes: u64) -> Self {
        self.memory.push(MemorySample { stamp, rss_bytes });
        self
    }

    /// The file's bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = frame::file_header().to_vec();
        meta::write_process(&mut out, &self.process);
        let sample = ClockSample { stamp: 1_000, monotonic_ns: 1_000, realtime_ns: EPOCH + 1_000 };
        meta::write_clock(&mut out, &[sample]);
        let (mut number, mut records) = (0, 0);
        let (mut encoder, mut zstd) = (Encoder::new(), Zstd::new().unwrap());
        for (stream, (thread, words)) in (1..).zip(&self.streams) {
            let mut position = 0;
            let all: Vec<_> = Records::new(&words.0).collect();
            records += all.len() as u64;
            for part in all.chunks(self.frame_records) {
                let words = part.concat();
                let (start, block) = (out.len(), Block { stream, thread: *thread, position });
                encoder.encode(&mut zstd, block, &words, &mut out);
                position += words.len() as u64;
                if self.left_out.contains(&number) {
                    out.truncate(start);
                } else if self.damaged.contains(&number) {
                    out[start + frame::FRAME_HEADER_BYTES + 1] ^= 0xff;
                }
                number += 1;
            }
        }
        meta::write_names(&mut out, &self.names);
        meta::write_memory(&mut out, &self.memory);
        if let Some(end) = &self.end {
            meta::write_end(&mut out, &End { records, ..end.clone() });
        }
        out
    }

    pub fn analyze(&self, wanted: Wanted) -> ProcessAnalysis {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&self.bytes()).unwrap();
        analyze(file.path(), Options { allocations: wanted, ..Options::default() }).unwrap()
    }
}
