//! `run --no-thread` where something goes wrong: somebody cuts the spool, memscope-cli is stopped or hardly ever runs, others want the
//! trace, or nobody is there to write it.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use memscope_tests::TempDir;
use memscope_tests::command::{only_child, signal};
use memscope_tests::recording::analyze;
use memscope_tests::snapshot::Stats;
use memscope_tests::{Cmd, Record, Snapshot, program};

use crate::drain::{analyzed, assert_exact, beside, drained, is_growing, start, told};
use crate::threads::written;

const DEADLINE: Duration = Duration::from_secs(60);

#[track_caller]
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Names of a process's threads.
fn threads(pid: u32) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    tasks.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok()).collect()
}

/// The spool that a process has mapped.
fn spool_of(pid: &str) -> PathBuf {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("its memory");
    let is_spool = |path: &&str| path.contains("memscope-") && path.ends_with(".spool");
    maps.split_whitespace().find(is_spool).expect("a spool").into()
}

/// Somebody cuts the spool. Its program can't be saved, but memscope-cli is not its victim, and says what there is.
#[test]
fn a_spool_that_is_cut() {
    let folder = TempDir::new().expect("a folder");
    let mut child = start(&drained(&["1", "idle"]), folder.path());
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    assert!(lines.next().expect("a line").expect("text").contains("idle"));
    let rec = folder.path().join("rec");
    wait_until("the idle thread is not drained", || written(&rec, 54_321) == 10);
    let spool = spool_of(&only_child(child.id()));
    fs::File::options().write(true).open(spool).expect("opened").set_len(0).expect("cut");
    wait_until("the drainer does not let go", || {
        assert_eq!(child.try_wait().expect("asked"), None, "it is there as long as the program");
        !threads(child.id()).iter().any(|name| name == "drain\n")
    });
    drop(child.stdin.take());
    let status = child.wait().expect("it ends");
    assert_eq!(status.code(), Some(128 + 7), "the program meets the hole itself: {status:?}");
    let snapshot = Snapshot::load(&rec.join("snapshot.json"));
    let process = &snapshot.processes[0];
    assert_eq!((process.end.as_str(), process.signal), ("signal", Some(7)));
    assert!(!process.complete && process.incomplete_reason.is_some(), "{:?}", process.incomplete_reason);
    assert!(process.stats.total_allocations >= 10, "what was drained before is there: {:?}", process.stats);
}

/// Bytes that a process has written.
fn written_by(pid: u32) -> u64 {
    let told = fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
    let number = told.lines().find_map(|line| line.strip_prefix("wchar: "));
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// A block is two events: what is not on record is counted.
#[track_caller]
fn assert_counted(stats: &Stats, blocks: u64) {
    let events =
        stats.total_allocations + stats.total_deallocations + stats.unknown_frees + stats.lost_events;
    assert!((2 * blocks..2 * blocks + 1000).contains(&events), "{blocks} blocks: {stats:?}");
}

/// memscope-cli is stopped, and the program isn't: it waits for a while, and goes on without being recorded.
#[test]
fn memscope_is_stopped() {
    let folder = TempDir::new().expect("a folder");
    let mut child = start(&drained(&["2", "200"]), folder.path());
    let mut pipe = child.stdout.take().expect("piped");
    let rec = folder.path().join("rec");
    // Before it has the claim, the program would write itself, and not miss it.
    wait_until("nothing is drained", || written_by(child.id()) > 64 << 10);
    signal(&child.id().to_string(), "STOP");
    // Its end would not do: memscope-cli has the other end of the pipe, too.
    let mut said = String::new();
    BufReader::new(&mut pipe).read_line(&mut said).expect("the program's report");
    let blocks = told(said.as_bytes(), "parent", "blocks");
    assert_eq!(blocks, 2 * 200 * 100_000, "it goes on");
    signal(&child.id().to_string(), "CONT");
    assert!(child.wait().expect("it ends").success());
    let snapshot = Snapshot::load(&rec.join("snapshot.json"));
    let process = &snapshot.processes[0];
    assert!(!process.complete, "it was not recorded to its end");
    let why = process.incomplete_reason.as_deref().unwrap_or_default();
    assert!(why.contains("no progress"), "{why}");
    assert_counted(&process.stats, blocks);
}

/// memscope-cli gets little of the processor: the program waits for it, and all is on record; or, where it gets next to nothing, all is
/// up to one instant, and the rest is counted.
#[test]
fn memscope_hardly_runs() {
    let folder = TempDir::new().expect("a folder");
    let mut child = start(&drained(&["4", "6"]), folder.path());
    let mut pipe = child.stdout.take().expect("piped");
    wait_until("nothing is recorded", || is_growing(&folder.path().join("rec")));
    let tasks = fs::read_dir(format!("/proc/{}/task", child.id())).expect("its threads").flatten();
    let names = tasks.map(|task| task.file_name().into_string().expect("a number"));
    // One of them may have ended meanwhile.
    let _ = Cmd::new(["renice", "-n", "10", "-p"]).args(names).run();
    let mut said = Vec::new();
    pipe.read_to_end(&mut said).expect("the program's output, to its end");
    assert!(child.wait().expect("it ends").success());
    let process = Snapshot::load(&folder.path().join("rec/snapshot.json")).processes.remove(0);
    let blocks = told(&said, "parent", "blocks");
    assert_counted(&process.stats, blocks);
    if process.complete {
        assert_exact(&process.stats, blocks, beside(&["4", "0"]));
    } else {
        assert!(process.incomplete_reason.is_some_and(|why| why.contains("no progress")));
    }
}

/// Others look at the recording all the time, and would complete it as soon as they may.
#[test]
fn others_want_the_trace() {
    let folder = TempDir::new().expect("a folder");
    let mut child = start(&drained(&["2", "12"]), folder.path());
    let mut pipe = child.stdout.take().expect("piped");
    let rec = folder.path().join("rec");
    wait_until("nothing is recorded", || is_growing(&rec));
    let reader = thread::spawn(move || {
        let mut said = Vec::new();
        pipe.read_to_end(&mut said).expect("the program's output, to its end");
        said
    });
    let mut looks = 0;
    while child.try_wait().expect("asked").is_none() {
        let json = folder.path().join("now.json");
        let _ = analyze(&rec, &json, &["--allocations", "none"]).success();
        looks += 1;
    }
    assert!(looks > 0 && child.wait().expect("it ends").success());
    let said = reader.join().expect("a reader");
    let snapshot = analyzed(folder.path());
    assert_exact(&snapshot.processes[0].stats, told(&said, "parent", "blocks"), beside(&["2", "0"]));
}

/// A filter for all threads where nobody is there who could write: recording ends as soon as the buffers are full, and is
/// complete up to there.
#[test]
fn a_filter_and_nobody_who_writes() {
    let argv = [program::c("circumstances", &[]), "seccomp_flood".into()];
    let recorded = Record::new(argv).by_hand().env("MEMSCOPE_THREAD", "0").allocations("none").with_code(7);
    let rec = recorded.folder.path().join("rec");
    let json = recorded.folder.path().join("out.json");
    let _ = analyze(&rec, &json, &["--allocations", "none"]).success();
    let process = Snapshot::load(&json).processes.remove(0);
    let why = process.incomplete_reason.as_deref().unwrap_or_default();
    assert!(!process.complete && why.contains("system calls"), "{why}");
    // What was recorded last lies just before the end of the recording: the program did not wait 5 s for somebody in between.
    let since = process.incomplete_since.expect("a time");
    let last = process.timeline.iter().map(|point| point.time).filter(|time| *time < since).max();
    let waited = since - last.expect("points before it");
    assert!(waited < 4_000_000_000, "it waited for somebody: {waited} ns");
    let stats = &process.stats;
    let events = stats.total_allocations + stats.total_deallocations + stats.lost_events;
    let least = 2 * (5_000 + 60_000 + 1_000_000);
    assert!((least..least + 10).contains(&events), "{least} events: {stats:?}");
    assert!(stats.total_allocations > 60_000 && stats.unknown_frees == 0, "{stats:?}");
}
