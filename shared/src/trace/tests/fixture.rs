//! A trace that was written when version 1 was new. It must stay readable; never write it anew because this
//! test fails, only when the version changes.

use super::*;
use crate::trace::{End, EndKind, MemorySample, ThreadName};

const TRACE: &[u8] = include_bytes!("fixtures/version-1.trace");

/// Checksums of the words of streams 1 and 2.
const WORDS: [(usize, u32); 2] = [(1500, 902_876_931), (1500, 3_647_322_652)];

fn fixture_process() -> Process {
    Process {
        pid: 4242,
        parent_pid: 4241,
        exe: b"/usr/bin/ls".to_vec(),
        args: vec![b"ls".to_vec(), b"-lR".to_vec()],
        page_size: 4096,
        library: b"0.1.0".to_vec(),
        ..process()
    }
}

fn fixture_end() -> End {
    End {
        kind: EndKind::Exit,
        exit_code: Some(0),
        stamp: 1 << 51,
        complete: true,
        records: 1,
        ..End::default()
    }
}

/// A trace like the fixture, as it is written today, and the words of its streams 1 and 2: a new version's is what this
/// gives then for units of 1 and 2.
fn make(units: [u32; 2]) -> (Vec<u8>, [Vec<u64>; 2]) {
    let mut bytes = start(&fixture_process());
    let mut program = Program::new(1, 40);
    let mut encoder = Encoder::new();
    let streams = [1, 2].map(|stream: u32| {
        let words = program.words(1500);
        encoder.set_unit(units[stream as usize - 1]);
        bytes.extend(frames(&mut encoder, stream, &words, &mut program).concat());
        words
    });
    encoder.set_codec(crate::trace::codec::ROWS);
    bytes.extend(
        frames(&mut encoder, 3, &[crate::record::head(crate::record::kind::FREE, 1), 1], &mut program)
            .concat(),
    );
    meta::write_memory(&mut bytes, &[MemorySample { stamp: 1 << 50, rss_bytes: 1 << 20 }]);
    meta::write_names(&mut bytes, &[ThreadName { thread: 1, stamp: 7, name: b"ls".to_vec() }]);
    meta::write_note(&mut bytes, 7, "a remark");
    meta::write_end(&mut bytes, &fixture_end());
    (bytes, streams)
}

/// Number and checksum of words.
fn sum(words: &[u64]) -> (usize, u32) {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    (words.len(), crc32fast::hash(&bytes))
}

#[test]
fn a_trace_of_version_1_is_read() {
    assert_says(TRACE, WORDS);
}

#[test]
fn a_trace_of_today_says_the_same() {
    // Exact stamps, so that the words are the same.
    let (bytes, streams) = make([1, 1]);
    assert_says(&bytes, streams.each_ref().map(|words| sum(words)));
}

/// All that the fixture says, but with these words.
fn assert_says(bytes: &[u8], expected: [(usize, u32); 2]) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.trace");
    write(&path, bytes);
    let trace = TraceFile::open(&path).unwrap();
    assert_eq!(trace.damages(), []);
    assert_eq!(trace.process(), Some(&fixture_process()));
    assert_eq!(trace.end(), Some(&fixture_end()));
    assert_eq!(trace.memory_samples()[0].rss_bytes, 1 << 20);
    assert_eq!(trace.thread_names()[0].name, b"ls");
    assert_eq!(trace.notes(), ["a remark"]);
    assert_eq!([1, 2].map(|stream| sum(&read_stream(&trace, stream))), expected);
}
