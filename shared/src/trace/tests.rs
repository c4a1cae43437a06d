//! The trace as a whole: written, damaged, cut, completed.

mod completion;
mod damage;
mod fixture;

use std::fs;
use std::path::Path;

use super::EventBuf;
use super::encode::{Block, Encoder};
use super::frame::file_header;
use super::meta::{self, ClockKind, ClockSample, Process};
use super::pack::Zstd;
use super::read::TraceFile;
use super::testing::Program;

/// One stream's records, in frames of random lengths.
fn frames(encoder: &mut Encoder, stream: u32, words: &[u64], program: &mut Program) -> Vec<Vec<u8>> {
    let (mut zstd, mut at, mut all) = (Zstd::new().unwrap(), 0, Vec::new());
    while at < words.len() {
        let mut end = at;
        let wanted = at + program.rng.below(400) as usize + 1;
        while end < words.len() && end < wanted {
            end += crate::record::length(&words[end..]).unwrap();
        }
        let mut out = Vec::new();
        let block = Block { stream, thread: stream, position: at as u64 };
        encoder.encode(&mut zstd, block, &words[at..end], &mut out);
        all.push(out);
        at = end;
    }
    all
}

/// File header, process and clock.
fn start(process: &Process) -> Vec<u8> {
    let mut out = file_header().to_vec();
    meta::write_process(&mut out, process);
    let sample = ClockSample { stamp: 1000, monotonic_ns: 1000, realtime_ns: 1 << 60 };
    meta::write_clock(&mut out, &[sample]);
    out
}

fn process() -> Process {
    // No process can have this number.
    Process { pid: u32::MAX, start_ticks: 5, clock: ClockKind::Monotonic, ..Process::default() }
}

/// All words of a stream in a trace file.
fn read_stream(trace: &TraceFile, stream: u32) -> Vec<u64> {
    let (mut buf, mut words) = (EventBuf::new(), Vec::new());
    let Some(index) = trace.streams().iter().find(|s| s.stream == stream) else { return words };
    for &frame in &index.frames {
        trace.read_events(frame, &mut buf).unwrap();
        assert_eq!(buf.records().count(), trace.frames()[frame].header.records as usize);
        words.extend_from_slice(buf.words());
    }
    words
}

fn write(path: &Path, bytes: &[u8]) {
    // Not over the old one: some file systems write a file that is replaced to disk at once.
    let _ = fs::remove_file(path);
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_trace_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.trace");
    let process = Process { exe: b"/bin/\xff".to_vec(), ..process() };
    let mut bytes = start(&process);
    let mut program = Program::new(1, 50);
    let mut encoder = Encoder::new();
    let streams: Vec<Vec<u64>> = (0..3).map(|_| program.words(5000)).collect();
    let mut all: Vec<_> = streams
        .iter()
        .zip(1..)
        .map(|(words, stream)| frames(&mut encoder, stream, words, &mut program).into_iter())
        .collect();
    // Streams mixed; frames of unknown kinds in between.
    while all.iter().any(|frames| frames.len() > 0) {
        let one = program.rng.below(3) as usize;
        bytes.extend(all[one].next().unwrap_or_default());
        if program.rng.chance(10) {
            let frame = super::frame::OpenFrame::begin(&mut bytes);
            bytes.extend([1, 2, 3]);
            frame.finish(&mut bytes, super::FrameHeader::new(super::Kind(9999)));
        }
    }
    write(&path, &bytes);
    let trace = TraceFile::open(&path).unwrap();
    assert_eq!(trace.damages(), []);
    assert_eq!(trace.gaps(), []);
    assert_eq!(trace.process(), Some(&process));
    assert_eq!(trace.clock_samples().len(), 1);
    for (words, stream) in streams.iter().zip(1..) {
        assert!(read_stream(&trace, stream) == *words, "stream {stream}");
    }
}

#[test]
fn other_files_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.trace");
    let refused = |bytes: &[u8]| {
        write(&path, bytes);
        TraceFile::open(&path).unwrap_err().to_string()
    };
    assert!(refused(b"").contains("not a memscope trace"));
    assert!(refused(&[0; 1000]).contains("not a memscope trace"));
    let mut header = file_header();
    header[8] = 200;
    assert!(refused(&header).contains("version 200"));
    let mut header = file_header();
    header[12] ^= 1;
    write(&path, &header);
    let changed = TraceFile::open(&path).unwrap();
    assert_eq!(changed.damages().first().map(|damage| (damage.offset, damage.length)), Some((0, 64)));
    assert!(TraceFile::open(dir.path().join("none")).unwrap_err().to_string().contains("cannot open"));
}
