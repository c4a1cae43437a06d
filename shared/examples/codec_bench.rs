//! How small and how fast the trace's codec is.
//!
//! Without arguments over made-up streams like those of typical programs; else over files of raw records
//! (little-endian words, one stream each). `--block N` sets the events in a block, `--unit N` what stamps
//! are rounded to.
//!
//! ```text
//! cargo run --release -p memscope-shared --features analysis --example codec_bench
//! ```

use std::process::ExitCode;
use std::time::Duration;

use memscope_shared::record::{Records, head, kind, kind_of};
use memscope_shared::trace::frame::{FRAME_HEADER_BYTES, FrameHeader};
use memscope_shared::trace::{Block, Compress, Encoder, EventBuf, Zstd};

/// Events of each made-up stream.
const EVENTS: u64 = 2_000_000;

fn main() -> ExitCode {
    let (mut block, mut unit, mut files) = (65_536, 49, Vec::new());
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--block" => block = args.next().and_then(|n| n.parse().ok()).unwrap_or(block),
            "--unit" => unit = args.next().and_then(|n| n.parse().ok()).unwrap_or(unit),
            _ => files.push(arg),
        }
    }
    println!(
        "{:24} {:>10} {:>8} {:>12} {:>12} {:>12}",
        "stream", "events", "B/event", "encode M/s", "decode M/s", "rows M/s"
    );
    if files.is_empty() {
        for (name, rows) in
            [("loop", plain_loop()), ("churn", churn(0)), ("nested", nested()), ("handed on", churn(1))]
        {
            measure(name, &rows, block, unit);
        }
    }
    for file in files {
        let Ok(bytes) = std::fs::read(&file) else {
            eprintln!("cannot read {file}");
            return ExitCode::FAILURE;
        };
        let word = |b: &[u8]| b.try_into().map_or(0, u64::from_le_bytes);
        measure(&file, &bytes.chunks_exact(8).map(word).collect::<Vec<_>>(), block, unit);
    }
    ExitCode::SUCCESS
}

fn measure(name: &str, rows: &[u64], block: usize, unit: u32) {
    let Some(mut zstd) = Zstd::new() else { return };
    let mut encoder = Encoder::new();
    encoder.set_unit(unit);
    let (mut buf, mut out, mut out_of_rows) = (EventBuf::new(), Vec::new(), Vec::new());
    let (mut encoding, mut decoding) = (Duration::ZERO, Duration::ZERO);
    let (mut events, mut bytes, mut plain) = (0u64, 0u64, Duration::ZERO);
    for rows in blocks(rows, block) {
        out.clear();
        let start = cpu_time();
        encoder.encode(&mut zstd, Block { stream: 1, thread: 1, position: 0 }, rows, &mut out);
        encoding += cpu_time().saturating_sub(start);
        bytes += out.len() as u64;
        events += Records::new(rows).filter(|r| is_event(r)).count() as u64;
        let raw: Vec<u8> = rows.iter().flat_map(|word| word.to_le_bytes()).collect();
        out_of_rows.clear();
        let start = cpu_time();
        assert!(zstd.compress(&raw, &mut out_of_rows));
        plain += cpu_time().saturating_sub(start);
        let start = cpu_time();
        let words = decode(&mut buf, &out);
        decoding += cpu_time().saturating_sub(start);
        assert_eq!(words, rows.len(), "{name} does not come back");
    }
    let rate = |time: Duration| events as f64 / time.as_secs_f64() / 1e6;
    let size = bytes as f64 / events as f64;
    let (encoding, decoding, plain) = (rate(encoding), rate(decoding), rate(plain));
    println!("{name:24.24} {events:10} {size:8.3} {encoding:12.1} {decoding:12.1} {plain:12.1}");
}

/// Processor time of this thread, which other work on the machine changes little.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// Decodes the frames in `bytes`; gives their words.
fn decode(buf: &mut EventBuf, mut bytes: &[u8]) -> usize {
    let mut words = 0;
    while let Some(header) = FrameHeader::from_bytes(bytes) {
        let payload = &bytes[FRAME_HEADER_BYTES..][..header.stored_len as usize];
        if buf.decode_payload(&header, payload).is_err() {
            return 0;
        }
        words += buf.words().len();
        bytes = &bytes[header.total_bytes() as usize..];
    }
    words
}

fn is_event(record: &[u64]) -> bool {
    !(kind::NODE..=kind::NODE_ROOT).contains(&kind_of(record[0]))
}

/// Parts rows into blocks of so many records.
fn blocks(rows: &[u64], records: usize) -> Vec<&[u64]> {
    let (mut blocks, mut rest) = (Vec::new(), rows);
    while !rest.is_empty() {
        let words: usize = Records::new(rest).take(records).map(<[u64]>::len).sum();
        if words == 0 {
            break;
        }
        let block;
        (block, rest) = rest.split_at(words);
        blocks.push(block);
    }
    blocks
}

/// A small generator of numbers.
struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % n
    }

    /// Time between two events: mostly short, in steps as a time stamp counter makes them.
    fn gap(&mut self) -> u64 {
        let steps = if self.below(40) == 0 { 20 + self.below(200) } else { 2 + self.below(6) };
        steps * 49 / 2
    }
}

/// An allocator that hands freed blocks of a size out again, last in, first out.
struct Heap {
    bins: Vec<Vec<u64>>,
    top: u64,
}

impl Heap {
    fn new() -> Self {
        Self { bins: vec![Vec::new(); 64], top: 0x5555_5560_0000 }
    }

    fn alloc(&mut self, size: u64) -> u64 {
        let units = (size + 23) / 16;
        self.bins[units as usize].pop().unwrap_or_else(|| {
            self.top += units * 16;
            self.top - units * 16
        })
    }

    fn free(&mut self, address: u64, size: u64) {
        self.bins[((size + 23) / 16) as usize].push(address);
    }
}

fn push_alloc(rows: &mut Vec<u64>, address: u64, stamp: u64, stack: u64, size: u64) {
    rows.extend([head(kind::ALLOC, address), stamp, stack << 32 | size]);
}

/// A loop that takes a block and gives it back.
fn plain_loop() -> Vec<u64> {
    let (mut rng, mut stamp, mut rows) = (Rng(521_288_629), 1 << 45, Vec::new());
    for _ in 0..EVENTS / 2 {
        stamp += rng.gap();
        push_alloc(&mut rows, 0x5555_5560_0040, stamp, 20, 32);
        stamp += rng.gap();
        rows.extend([head(kind::FREE, 0x5555_5560_0040), stamp]);
    }
    rows
}

/// Random slots are freed and filled again. With `foreign`, another thread made what is freed.
fn churn(foreign: u64) -> Vec<u64> {
    let (mut rng, mut heap, mut stamp, mut rows) = (Rng(88_172_645), Heap::new(), 1 << 45, Vec::new());
    let mut slots = vec![(0, 0); 1000];
    for _ in 0..EVENTS / 2 {
        let slot = rng.below(1000) as usize;
        let (address, size) = slots[slot];
        stamp += rng.gap();
        rows.extend([head(kind::FREE, address ^ foreign << 40), stamp]);
        heap.free(address, size);
        let size = 16 + rng.below(496);
        slots[slot] = (heap.alloc(size), size);
        stamp += rng.gap();
        push_alloc(&mut rows, slots[slot].0, stamp, 20 + rng.below(8), size);
    }
    rows
}

/// Trees of blocks are built and taken down again.
fn nested() -> Vec<u64> {
    let (mut rng, mut heap, mut stamp, mut rows) = (Rng(2_463_534_242), Heap::new(), 1 << 45, Vec::new());
    let mut live = Vec::new();
    for _ in 0..EVENTS {
        stamp += rng.gap();
        if live.len() > 40 || live.len() > 4 && rng.below(2) == 0 {
            let Some((address, size)) = live.pop() else { continue };
            rows.extend([head(kind::FREE, address), stamp]);
            heap.free(address, size);
        } else {
            let stack = live.len() as u64 * 7 + rng.below(3);
            let size = 24 + stack % 5 * 24;
            let address = heap.alloc(size);
            push_alloc(&mut rows, address, stamp, stack, size);
            live.push((address, size));
        }
    }
    rows
}
