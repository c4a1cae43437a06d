//! SIGKILL at any moment: what the program itself told of before is on record.

use std::collections::HashMap;
use std::io::Read;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use memscope_tests::recording::analyze;
use memscope_tests::{Record, Snapshot, program};
use tempfile::TempDir;

/// Starts the program, kills it after a while, and gives what it told of.
fn told_before_the_kill(
    record: &Record,
    folder: &TempDir,
    wait: Duration,
    pid_of: impl Fn(u32) -> String,
) -> Vec<(u64, u64)> {
    let mut child = record
        .command_in(folder.path())
        .command()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("a program to kill");
    let mut pipe = child.stdout.take().expect("piped");
    let reader = thread::spawn(move || {
        let mut told = Vec::new();
        drop(pipe.read_to_end(&mut told));
        told
    });
    thread::sleep(wait);
    memscope_tests::command::signal(&pid_of(child.id()), "KILL");
    let _ = child.wait().expect("it ends");
    let bytes = reader.join().expect("a reader");
    bytes
        .chunks_exact(16)
        .map(|pair| {
            let word = |at: usize| u64::from_le_bytes(pair[at..at + 8].try_into().expect("eight bytes"));
            (word(0), word(8))
        })
        .collect()
}

#[track_caller]
fn assert_all_there(snapshot: &Snapshot, told: &[(u64, u64)], when: Duration) {
    let process = &snapshot.processes[0];
    let mut recorded: HashMap<(u64, u64), usize> = HashMap::new();
    for a in &process.allocations {
        *recorded.entry((a.ptr, a.size)).or_default() += 1;
    }
    let mut missing = 0;
    for block in told {
        match recorded.get_mut(block) {
            Some(n) if *n > 0 => *n -= 1,
            _ => missing += 1,
        }
    }
    assert_eq!(
        missing,
        0,
        "killed after {when:?}: of {} blocks told of; {} recorded; {:?}",
        told.len(),
        process.allocations.len(),
        snapshot.incomplete_reason
    );
    assert_eq!(process.stats.unknown_frees, 0, "{when:?}");
}

/// Different every time: 3 ms to 160 ms.
fn moments(n: u64) -> impl Iterator<Item = Duration> {
    let seed = u64::from(std::process::id());
    (0..n).map(move |i| Duration::from_micros(3_000 + (i * 7_919 + seed * 104_729) % 157_000))
}

/// `run` completes the trace when the program was killed; the JSON says how it ended.
#[test]
fn under_run() {
    let record = Record::new([program::c("reports_blocks", &[])]);
    let mut most = 0;
    for wait in moments(8) {
        let folder = TempDir::new().expect("a folder");
        // The program is memscope-cli's only child.
        let child_of = |pid: u32| loop {
            let children =
                std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("it runs");
            if let Some(child) = children.split_whitespace().next() {
                break child.to_owned();
            }
            thread::yield_now();
        };
        let told = told_before_the_kill(&record, &folder, wait + Duration::from_millis(20), child_of);
        let snapshot = Snapshot::load(&folder.path().join("rec/snapshot.json"));
        assert_all_there(&snapshot, &told, wait);
        let process = &snapshot.processes[0];
        assert_eq!((process.end.as_str(), process.signal), ("signal", Some(9)), "{wait:?}");
        assert!(snapshot.complete, "{wait:?}: {:?}", snapshot.incomplete_reason);
        most = most.max(told.len());
    }
    assert!(most > 1_000, "at most {most} blocks were told of");
}

/// By hand: `analyze` brings in what the dead process left, and removes it.
#[test]
fn by_hand() {
    let record = Record::new([program::c("reports_blocks", &[])]).by_hand();
    let mut most = 0;
    for wait in moments(8) {
        let folder = TempDir::new().expect("a folder");
        let told = told_before_the_kill(&record, &folder, wait, |pid| pid.to_string());
        if !folder.path().join("rec").exists() {
            assert!(told.is_empty(), "{wait:?}: no recording, but {} blocks were told of", told.len());
            continue;
        }
        let json = folder.path().join("out.json");
        let _ = analyze(&folder.path().join("rec"), &json, &["--allocations", "all"]).success();
        let snapshot = Snapshot::load(&json);
        assert_all_there(&snapshot, &told, wait);
        // A second look finds the same: the first one completed the trace.
        let again = folder.path().join("again.json");
        let _ = analyze(&folder.path().join("rec"), &again, &["--allocations", "all"]).success();
        assert_eq!(Snapshot::load(&again).totals(), snapshot.totals(), "{wait:?}");
        most = most.max(told.len());
    }
    assert!(most > 1_000, "at most {most} blocks were told of");
}
