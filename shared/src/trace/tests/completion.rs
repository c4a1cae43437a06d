//! Completion from a spool: whatever the trace already has, and wherever it was interrupted.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::*;
use crate::spool;
use crate::spool::{BUFFER_BYTES, BUFFER_HEADER_BYTES, HEADER_BYTES};
use crate::trace::{End, EndKind, Ending, FrameInfo, Outcome, TraceError, complete};

/// Words in a buffer of these tests, so that there are several.
const WORDS: usize = 700;

struct Case {
    dir: tempfile::TempDir,
    process: Process,
    /// The words of streams 1, 2 and 3.
    streams: Vec<Vec<u64>>,
    /// Header words by offset, beyond those that every spool has.
    header: Vec<(usize, u64)>,
}

/// One buffer's place in its stream: (stream, from, to).
type Piece = (u32, usize, usize);

impl Case {
    fn new(seed: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let spool = dir.path().join("spool").as_os_str().as_bytes().to_vec();
        let mut program = Program::new(seed, 0);
        let streams = (0..3).map(|_| program.words(4000)).collect();
        let process = Process { spool, ..process() };
        Self { dir, process, streams, header: Vec::new() }
    }

    fn trace_path(&self) -> PathBuf {
        self.dir.path().join("7-0.trace")
    }

    fn spool_path(&self) -> PathBuf {
        self.dir.path().join("spool")
    }

    /// The streams in pieces that fit a buffer, each of whole records.
    fn pieces(&self) -> Vec<Piece> {
        let mut pieces = Vec::new();
        for (words, stream) in self.streams.iter().zip(1..) {
            let (mut from, mut at) = (0, 0);
            while at < words.len() {
                let length = crate::record::length(&words[at..]).unwrap();
                if at + length - from > WORDS {
                    pieces.push((stream, from, at));
                    from = at;
                }
                at += length;
            }
            pieces.push((stream, from, at));
        }
        pieces
    }

    fn write_trace(&self, pieces: &[Piece]) -> Vec<u8> {
        let mut bytes = start(&self.process);
        let (mut encoder, mut zstd) = (Encoder::new(), Zstd::new().unwrap());
        for &(stream, from, to) in pieces {
            let block = Block { stream, thread: stream, position: from as u64 };
            encoder.encode(&mut zstd, block, &self.streams[stream as usize - 1][from..to], &mut bytes);
        }
        write(&self.trace_path(), &bytes);
        bytes
    }

    fn write_spool(&self, pieces: &[Piece]) {
        let mut bytes = vec![0; HEADER_BYTES + pieces.len() * BUFFER_BYTES];
        let mut put = |at: usize, value: u64| bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        put(spool::header::MAGIC, spool::MAGIC);
        put(spool::header::VERSION, spool::VERSION);
        put(spool::header::PID, u64::from(self.process.pid));
        put(spool::header::START_TICKS, self.process.start_ticks);
        put(spool::header::BUFFERS, pieces.len() as u64);
        put(spool::header::ENDED_AT, u64::MAX);
        for &(offset, value) in &self.header {
            put(offset, value);
        }
        for (i, &(stream, from, to)) in pieces.iter().enumerate() {
            let at = HEADER_BYTES + i * BUFFER_BYTES;
            put(at + spool::buffer::STREAM, u64::from(stream));
            put(at + spool::buffer::THREAD, u64::from(stream));
            put(at + spool::buffer::POSITION, from as u64);
            put(at + spool::buffer::COMMITTED, (to - from) as u64);
            for (k, &word) in self.streams[stream as usize - 1][from..to].iter().enumerate() {
                put(at + BUFFER_HEADER_BYTES + k * 8, word);
            }
        }
        write(&self.spool_path(), &bytes);
        fs::set_permissions(self.spool_path(), fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn complete(&self, ending: Ending) -> End {
        match complete(self.trace_path(), &ending).unwrap() {
            Outcome::Completed { end, .. } => end,
            Outcome::AlreadyComplete => panic!("it was not complete"),
        }
    }

    /// Opens the completed trace and compares all words.
    fn check_words(&self) -> TraceFile {
        let trace = TraceFile::open(self.trace_path()).unwrap();
        assert_eq!(trace.damages(), []);
        assert_eq!(trace.gaps(), []);
        for (words, stream) in self.streams.iter().zip(1..) {
            assert!(read_stream(&trace, stream) == *words, "stream {stream}");
        }
        assert!(!self.spool_path().exists());
        trace
    }
}

#[test]
fn whatever_was_written_the_rest_comes_from_the_spool() {
    for seed in 0..40 {
        let case = Case::new(seed);
        let (mut written, mut spooled) = (Vec::new(), Vec::new());
        let mut rng = crate::trace::testing::Rng(seed);
        for piece in case.pieces() {
            match rng.below(3) {
                0 => written.push(piece),
                1 => spooled.push(piece),
                _ => {
                    // Taken into the trace, but the buffer was not given back yet.
                    written.push(piece);
                    spooled.push(piece);
                }
            }
        }
        for i in 1..spooled.len() {
            spooled.swap(i, rng.below(i as u64 + 1) as usize);
        }
        case.write_trace(&written);
        case.write_spool(&spooled);
        let end = case.complete(Ending::default());
        assert!(end.complete, "{end:?}");
        let trace = case.check_words();
        assert_eq!(trace.end(), Some(&end));
        assert_eq!(end.records, trace.streams().iter().map(|s| s.records).sum::<u64>());
        assert_eq!(complete(case.trace_path(), &Ending::default()).unwrap(), Outcome::AlreadyComplete);
    }
}

#[test]
fn a_part_of_a_buffer_may_be_written() {
    let case = Case::new(5);
    let pieces = case.pieces();
    let (stream, from, to) = pieces[0];
    let words = &case.streams[0];
    let mut middle = from;
    while middle < to / 2 {
        middle += crate::record::length(&words[middle..]).unwrap();
    }
    case.write_trace(&[(stream, from, middle)]);
    case.write_spool(&pieces);
    assert!(case.complete(Ending::default()).complete);
    case.check_words();
}

#[test]
fn it_may_be_killed_at_any_byte_and_done_again() {
    let case = Case::new(6);
    let pieces = case.pieces();
    let before = case.write_trace(&pieces[..4]);
    case.write_spool(&pieces[3..]);
    let end = case.complete(Ending::default());
    let after = fs::read(case.trace_path()).unwrap();
    let step = if cfg!(debug_assertions) { 499 } else { 7 };
    for cut in (before.len()..after.len()).step_by(step).chain(after.len() - 300..after.len()) {
        write(&case.trace_path(), &after[..cut]);
        case.write_spool(&pieces[3..]);
        match complete(case.trace_path(), &Ending::default()).unwrap() {
            Outcome::Completed { end: again, .. } => assert_eq!(again, end, "cut at {cut}"),
            Outcome::AlreadyComplete => assert!(after.len() - cut < 8, "cut at {cut}"),
        }
        case.check_words();
    }
}

#[test]
fn an_unfinished_frame_is_cut_off() {
    let case = Case::new(7);
    let pieces = case.pieces();
    let bytes = case.write_trace(&pieces[..2]);
    let start = start(&case.process).len();
    for cut in [start, start + 1, start + 63, start + 64, start + 100, bytes.len() - 100] {
        write(&case.trace_path(), &bytes[..cut]);
        case.write_spool(&pieces);
        assert!(case.complete(Ending::default()).complete);
        case.check_words();
    }
}

#[test]
fn a_missing_buffer_is_said() {
    let case = Case::new(8);
    let mut pieces = case.pieces();
    let missing = pieces.remove(3);
    case.write_trace(&pieces[..2]);
    case.write_spool(&pieces[2..]);
    let end = case.complete(Ending::default());
    assert!(!end.complete);
    assert!(end.reason.unwrap().contains(&format!("{} words", missing.2 - missing.1)));
    assert!(end.incomplete_since.unwrap() > 1 << 49);
}

#[test]
fn a_spool_that_is_gone_is_said() {
    let case = Case::new(9);
    case.write_trace(&case.pieces()[..2]);
    let end = case.complete(Ending { exit_code: Some(3), ..Ending::default() });
    assert!(!end.complete);
    assert!(end.reason.unwrap().contains("has gone"));
    assert_eq!((end.kind, end.exit_code), (EndKind::Exit, Some(3)));
}

#[test]
fn a_spool_of_another_process_is_left_alone() {
    let mut case = Case::new(10);
    case.write_trace(&case.pieces());
    case.header.push((spool::header::PID, 1));
    case.write_spool(&[]);
    let end = case.complete(Ending::default());
    assert!(end.reason.unwrap().contains("another process"));
    assert!(case.spool_path().exists());
}

/// A process that was killed as it began: its spool goes, and a file of another kind in its place does not.
#[test]
fn a_blank_spool_is_removed() {
    for (name, stays) in [("memscope-0123456789abcdef01234567.spool", false), ("precious", true)] {
        for content in [vec![], vec![0; HEADER_BYTES]] {
            let mut case = Case::new(12);
            let path = case.dir.path().join(name);
            case.process.spool = path.as_os_str().as_bytes().to_vec();
            case.write_trace(&[]);
            write(&path, &content);
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            let end = case.complete(Ending::default());
            assert!(!end.complete && end.reason.unwrap().contains("as its recording began"));
            assert_eq!(path.exists(), stays, "{name}");
        }
    }
}

#[test]
fn ends() {
    let exit = [
        (spool::header::EXIT_CALLED, 1),
        (spool::header::EXIT_CODE, 259),
        (spool::header::EXIT_STAMP, 1 << 52),
    ];
    let end = |header: &[(usize, u64)], ending: Ending| {
        let mut case = Case::new(11);
        case.header = header.to_vec();
        case.write_trace(&[]);
        case.write_spool(&case.pieces());
        let end = case.complete(ending);
        case.check_words();
        (end.kind, end.exit_code, end.signal, end.stamp)
    };
    let nothing = Ending::default();
    let last = end(&[], nothing).3;
    assert_eq!(end(&[], nothing), (EndKind::Unknown, None, None, last));
    assert_eq!(end(&exit, nothing), (EndKind::Exit, Some(3), None, 1 << 52));
    let seen = Ending { seen_ns: Some(1 << 53), ..nothing };
    let code = Ending { exit_code: Some(4), ..seen };
    assert_eq!(end(&[], code), (EndKind::UnderscoreExit, Some(4), None, 1 << 53));
    assert_eq!(end(&exit, code), (EndKind::Exit, Some(4), None, 1 << 52));
    let signal = Ending { signal: Some(9), ..seen };
    assert_eq!(end(&exit, signal), (EndKind::Signal, None, Some(9), 1 << 53));
    let early = Ending { seen_ns: Some(1 << 20), ..signal };
    assert_eq!(end(&[], early).3, last);
}

#[test]
fn a_later_image_means_exec() {
    let case = Case::new(12);
    case.write_trace(&[]);
    fs::copy(case.trace_path(), case.dir.path().join("7-10.trace")).unwrap();
    case.write_spool(&case.pieces());
    assert_eq!(case.complete(Ending { exit_code: Some(4), ..Ending::default() }).kind, EndKind::Exec);
}

#[test]
fn lost_events_and_the_last_clock_are_taken_over() {
    let mut case = Case::new(13);
    case.header = vec![
        (spool::header::ENDED_AT, 1 << 49),
        (spool::header::END_REASON, 2),
        (spool::header::LOST_EVENTS, 12),
        (spool::header::CLOCK_STAMP, 1 << 51),
        (spool::header::CLOCK_NS, (1 << 51) + 70),
    ];
    case.write_trace(&[]);
    case.write_spool(&case.pieces());
    let end = case.complete(Ending::default());
    assert_eq!((end.lost_events, end.incomplete_since), (12, Some(1 << 49)));
    assert!(end.reason.unwrap().contains("no space"));
    let trace = case.check_words();
    assert_eq!(trace.clock_samples()[1].realtime_ns, (1 << 60) + (1 << 51) + 70 - 1000);
}

#[test]
fn a_torn_clock_reading_is_not_believed() {
    let mut case = Case::new(14);
    case.header = vec![(spool::header::CLOCK_STAMP, 1_000_000_000), (spool::header::CLOCK_NS, 900_000_000)];
    case.write_trace(&[]);
    case.write_spool(&[]);
    case.complete(Ending::default());
    assert_eq!(TraceFile::open(case.trace_path()).unwrap().clock_samples().len(), 1);
}

#[test]
fn a_running_process_is_refused() {
    let mut case = Case::new(15);
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let ticks = stat.rsplit(')').next().unwrap().split_ascii_whitespace().nth(19).unwrap();
    let exe = fs::read_link("/proc/self/exe").unwrap();
    case.process = Process {
        pid: std::process::id(),
        start_ticks: ticks.parse().unwrap(),
        spool: exe.as_os_str().as_bytes().to_vec(),
        ..case.process
    };
    let bytes = case.write_trace(&case.pieces()[..2]);
    let result = complete(case.trace_path(), &Ending::default());
    assert!(matches!(result, Err(TraceError::Running(_, pid)) if pid == std::process::id()));
    assert_eq!(fs::read(case.trace_path()).unwrap(), bytes);
}

#[test]
fn hostile_spools_are_survived() {
    let case = Case::new(16);
    let pieces = case.pieces();
    let mut rng = crate::trace::testing::Rng(17);
    for _ in 0..60 {
        case.write_trace(&pieces[..3]);
        case.write_spool(&pieces);
        let mut bytes = fs::read(case.spool_path()).unwrap();
        for _ in 0..40 {
            let buffer = rng.below(pieces.len() as u64) as usize;
            let within = if rng.chance(2) { rng.below(40) } else { rng.below(BUFFER_BYTES as u64) };
            bytes[HEADER_BYTES + buffer * BUFFER_BYTES + within as usize] = rng.next() as u8;
        }
        bytes.truncate(bytes.len() - rng.below(100_000) as usize);
        write(&case.spool_path(), &bytes);
        case.complete(Ending::default());
        let trace = TraceFile::open(case.trace_path()).unwrap();
        assert!(trace.end().is_some());
        for stream in trace.streams() {
            read_stream(&trace, stream.stream);
        }
    }
}

#[test]
fn a_spool_that_was_cut_is_a_loss() {
    // The trace has the first piece of each stream, and one of them its second; the spool all others, but somebody cuts it.
    let case = Case::new(31);
    let pieces = case.pieces();
    let firsts: Vec<Piece> = pieces.iter().copied().filter(|piece| piece.1 == 0).collect();
    case.write_trace(&firsts);
    let rest: Vec<Piece> = pieces.iter().copied().filter(|piece| piece.1 != 0).collect();
    case.write_spool(&rest);
    let kept = rest.len() - 2;
    let file = fs::OpenOptions::new().write(true).open(case.spool_path()).unwrap();
    file.set_len((HEADER_BYTES + kept * BUFFER_BYTES + 100) as u64).unwrap();
    let end = case.complete(Ending::default());
    assert!(!end.complete);
    assert_eq!(end.reason.as_deref(), Some("somebody has cut the shared memory"));
    let trace = TraceFile::open(case.trace_path()).unwrap();
    let first_ends = firsts.iter().map(|&(stream, ..)| {
        let of_stream = |frame: &&FrameInfo| frame.header.stream == stream && frame.header.position == 0;
        trace.frames().iter().find(of_stream).map(|frame| frame.header.last_stamp).unwrap()
    });
    assert_eq!(end.incomplete_since, first_ends.min());
}
