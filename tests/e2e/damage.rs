//! Traces that were cut or damaged: what is left is right, and it is said that something is missing.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use memscope_tests::TempDir;
use memscope_tests::recording::analyze;
use memscope_tests::{Ran, Record, Snapshot, program, things};

/// A recording of many frames, and what it says when whole.
struct Whole {
    folder: TempDir,
    bytes: Vec<u8>,
    snapshot: Snapshot,
}

impl Whole {
    fn new(record: &Record) -> Self {
        let recorded = record.success();
        let snapshot = recorded.snapshot();
        let traces = recorded.traces();
        assert_eq!(traces.len(), 1);
        let bytes = fs::read(&traces[0]).expect("a trace");
        Self { folder: TempDir::new().expect("a folder"), bytes, snapshot }
    }

    /// Analyses these bytes as a trace. A snapshot, or the refusal.
    fn analyze(&self, bytes: &[u8]) -> Result<Snapshot, Ran> {
        let trace = self.folder.path().join("1-0.trace");
        let out = self.folder.path().join("out.json");
        drop(fs::remove_file(&out));
        fs::write(&trace, bytes).expect("a trace");
        let ran = analyze(&trace, &out, &["--allocations", "all"]);
        assert!(!ran.err().contains("panicked"), "{}", ran.tail());
        if ran.code() == 0 {
            let snapshot = Snapshot::load(&out);
            // The first look may have completed the file with an end: what it says stays the same.
            let _ = analyze(&trace, &out, &["--allocations", "none"]).success();
            assert_eq!(Snapshot::load(&out).processes[0].stats, snapshot.processes[0].stats);
            return Ok(snapshot);
        }
        assert_eq!(ran.code(), 125, "{}", ran.tail());
        assert!(ran.err().starts_with("memscope: "), "{}", ran.tail());
        assert!(!out.exists(), "no snapshot after a refusal");
        Err(ran)
    }
}

/// Blocks by address, size and thread, with how often each was there. Not by time: a shorter trace has fewer readings of
/// the clock to tell it by.
fn blocks(snapshot: &Snapshot) -> HashMap<(u64, u64, u64), usize> {
    let mut blocks = HashMap::new();
    for a in &snapshot.processes[0].allocations {
        *blocks.entry((a.ptr, a.size, a.thread_id)).or_default() += 1;
    }
    blocks
}

/// Blocks of `part` that are not in `whole`, or not as often.
fn invented(part: &Snapshot, whole: &HashMap<(u64, u64, u64), usize>) -> Vec<(u64, u64, u64)> {
    let known = blocks(part);
    known
        .into_iter()
        .filter(|(block, n)| whole.get(block).is_none_or(|m| m < n))
        .map(|(block, _)| block)
        .take(3)
        .collect()
}

/// A simple generator, so that every run cuts at the same places.
struct Places(u64);

impl Places {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % n as u64).expect("below a usize")
    }
}

fn record_churn(n: &str) -> Record {
    Record::new([things::workload("churn.c")]).arg(n)
}

/// Cut anywhere: every block that is told of is one of the whole trace, a longer piece tells of more, and it is called
/// incomplete.
#[test]
fn a_cut_trace_is_a_prefix() {
    let whole = Whole::new(&record_churn("60000"));
    let all = blocks(&whole.snapshot);
    let mut places = Places(0x9E37_79B9_7F4A_7C15);
    let mut cuts: Vec<usize> = (0..30).map(|_| places.below(whole.bytes.len() - 8)).collect();
    // Up to seven bytes at the end are padding, which may be missing.
    cuts.extend([0, 1, 7, 8, 15, 16, whole.bytes.len() - 8]);
    cuts.sort_unstable();
    let mut before = 0;
    let mut readable = 0;
    for cut in cuts {
        let Ok(snapshot) = whole.analyze(&whole.bytes[..cut]) else {
            assert!(before == 0, "a cut at {cut} is refused, a shorter piece was not");
            continue;
        };
        readable += 1;
        assert!(
            !snapshot.complete && snapshot.incomplete_reason.is_some(),
            "cut at {cut}: {:?}",
            snapshot.incomplete_reason
        );
        assert_eq!(invented(&snapshot, &all), [], "cut at {cut}: not of the whole trace");
        let known = snapshot.processes[0].allocations.len();
        assert!(known >= before, "cut at {cut}: {known} blocks, a shorter piece had {before}");
        before = known;
    }
    assert!(readable > 20, "{readable} cuts were readable");
    assert!(
        before > whole.snapshot.processes[0].allocations.len() / 2,
        "the longest pieces hold most of the blocks"
    );
}

/// The whole file is complete: the test above proves something.
#[test]
fn the_whole_trace_is_complete() {
    let whole = Whole::new(&record_churn("60000"));
    let again = whole.analyze(&whole.bytes).unwrap_or_else(|ran| panic!("{}", ran.tail()));
    assert!(again.complete);
    assert_eq!(again.processes[0].stats, whole.snapshot.processes[0].stats);
}

/// One byte changed, anywhere: it is noticed, and what is told of is still true.
#[test]
fn a_damaged_byte_is_reported() {
    let whole = Whole::new(&record_churn("20000"));
    let all = blocks(&whole.snapshot);
    let mut places = Places(0x2545_F491_4F6C_DD1D);
    let mut read = 0;
    for round in 0..60 {
        let mut bytes = whole.bytes.clone();
        // The first rounds go through the head of the file byte by byte.
        let place = if round < 24 { round } else { places.below(bytes.len()) };
        bytes[place] ^= 1 << places.below(8);
        let Ok(snapshot) = whole.analyze(&bytes) else { continue };
        read += 1;
        assert!(!snapshot.complete, "a changed byte at {place} of {} was not noticed", bytes.len());
        assert_eq!(invented(&snapshot, &all), [], "changed at {place}: not of the whole trace");
    }
    assert!(read > 20, "most damage is survived: {read} of 60");
}

/// Pieces cut out of the middle, doubled or put together: never a panic, and never taken for whole.
#[test]
fn a_mangled_trace_is_not_believed() {
    let whole = Whole::new(&Record::new([program::c("brief_threads", &[])]).arg("400"));
    let mut places = Places(0x1234_5678_9ABC_DEF1);
    for round in 0..40 {
        let n = whole.bytes.len();
        let (a, b) = (places.below(n), places.below(n));
        let (from, to) = (a.min(b), a.max(b) + 1);
        let bytes = match round % 4 {
            0 => [&whole.bytes[..from], &whole.bytes[to..]].concat(),
            1 => [&whole.bytes[..to], &whole.bytes[from..]].concat(),
            2 => [&whole.bytes[..from], &vec![0; to - from], &whole.bytes[to..]].concat(),
            _ => [&whole.bytes[..from], &vec![0xff; 5000]].concat(),
        };
        if let Ok(snapshot) = whole.analyze(&bytes) {
            let same = snapshot.processes[0].stats == whole.snapshot.processes[0].stats;
            assert!(
                !snapshot.complete || (same && bytes.starts_with(&whole.bytes)),
                "round {round}: {from}..{to}"
            );
        }
    }
}

/// Analysis takes memory for what is in a file, not for what it claims.
#[test]
fn junk_is_refused_in_little_memory() {
    let folder = TempDir::new().expect("a folder");
    let whole = Whole::new(&record_churn("1000"));
    let trace: PathBuf = folder.path().join("1-0.trace");
    let mut places = Places(77);
    for round in 0..20 {
        let mut bytes = whole.bytes.clone();
        // Every number from here on says "very many".
        let from = 8 + places.below(64.min(bytes.len() - 8));
        let width = [1, 2, 4, 8][round % 4];
        for byte in &mut bytes[from..from + width] {
            *byte = 0xff;
        }
        fs::write(&trace, &bytes).expect("a trace");
        let ran = analyze_limited(&trace, &folder.path().join("out.json"));
        assert!([0, 125].contains(&ran.code()), "round {round} at {from}\n{}", ran.tail());
    }
}

/// With 2 GiB of address space.
fn analyze_limited(trace: &Path, out: &Path) -> Ran {
    let cli = memscope_tests::artifacts::cli();
    let line =
        format!("ulimit -v 2097152; exec {} analyze {} {}", cli.display(), trace.display(), out.display());
    memscope_tests::Cmd::new(["sh", "-c", &line]).run()
}
