//! Blocks that threads hand to each other, and threads that live briefly.

use std::io::Read;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use memscope_tests::TempDir;
use memscope_tests::recording::{analyze, traces_in};
use memscope_tests::said::{Said, Tally};
use memscope_tests::snapshot::{Process, SiteStats};
use memscope_tests::{Cmd, Record, Snapshot, program};

/// Eight threads pass 10 million blocks around: exact, no false leak, no unknown free.
#[test]
fn ten_million_blocks_through_eight_threads() {
    let program = program::c("handover", &[]);
    let run = |blocks: &str| {
        Record::new([&program]).arg(blocks).allocations("none").timeout(Duration::from_secs(400)).success()
    };
    let less = run("0").process();
    let recorded = run("10000000");
    let said = Said::parse(&recorded.ran.stdout);
    let process = recorded.process();
    assert_eq!(Tally::difference(&process.stats, &less.stats), said.tally);
    assert_eq!(process.stats.active_allocations, less.stats.active_allocations, "false leaks");
    assert_eq!(process.stats.unknown_frees, 0);
    assert!(process.stats.threads >= 9, "main and eight: {}", process.stats.threads);
}

/// Sums over the stacks whose innermost frame is this function.
fn sums(process: &Process, leaf: &str) -> SiteStats {
    let mut sum = SiteStats::default();
    for stack in &process.stacks {
        if stack.frames.first().is_some_and(|&f| process.frames[f].name() == leaf) {
            sum.allocations += stack.stats.allocations;
            sum.allocated += stack.stats.allocated;
            sum.deallocations += stack.stats.deallocations;
            sum.deallocated += stack.stats.deallocated;
        }
    }
    sum
}

/// Bytes by which the program's resident set grew from its thousandth thread to its last.
fn growth(said: &Said) -> i64 {
    let resident: Vec<i64> =
        said.others.iter().filter_map(|line| line["resident"]["bytes"].as_i64()).collect();
    assert_eq!(resident.len(), 2, "{:?}", said.others);
    resident[1] - resident[0]
}

/// Exact counts, and what memscope holds does not grow with the number of threads that there were.
#[test]
fn ten_thousand_brief_threads() {
    let program = program::c("brief_threads", &[]);
    let native = Said::parse(&Cmd::new([&program]).arg("10000").run().success().stdout);
    let recorded = Record::new([&program]).arg("10000").allocations("live").success();
    let said = Said::parse(&recorded.ran.stdout);
    let process = recorded.process();
    let sum = sums(&process, "brief");
    assert_eq!(sum.allocations, said.tally.total_allocations);
    assert_eq!(sum.allocated, said.tally.total_allocated);
    assert_eq!(sum.deallocations, said.tally.total_deallocations);
    assert_eq!(sum.deallocated, said.tally.total_deallocated);
    assert_eq!(process.stats.threads, 10_001);
    assert_eq!(process.stats.unknown_frees, 0);
    let (ours, without) = (growth(&said), growth(&native));
    assert!(ours < without + (4 << 20), "grew by {ours} bytes, natively by {without}");
}

/// Each brief thread has a number of its own, although its tid and its stack come again.
#[test]
fn thread_numbers_are_never_reused() {
    let recorded = Record::new([program::c("brief_threads", &[])]).arg("400").success();
    let process = recorded.process();
    let mut ids: Vec<u64> = process.threads.iter().map(|t| t.id).collect();
    ids.sort_unstable();
    assert_eq!(ids, (1..=401).collect::<Vec<_>>());
    // Seven blocks of known sizes in each thread but the main one.
    for id in 2..=401 {
        let sizes: Vec<u64> = process
            .allocations
            .iter()
            .filter(|a| a.thread_id == id && process.names(a)[0] == "brief")
            .map(|a| a.size)
            .collect();
        assert_eq!(sizes, [41, 43, 45, 47, 49, 51, 53], "thread {id}");
    }
    let handed = process.allocations.iter().filter(|a| a.size == 51 && a.thread_id != 1).collect::<Vec<_>>();
    assert_eq!(handed.len(), 400);
    assert!(handed.iter().all(|a| a.dealloc_thread_id == Some(1)), "the main thread freed them");
}

/// How many blocks of a size stand in the traces of a recording, without what lies in shared memory.
pub fn written(rec: &Path, size: u64) -> usize {
    // Not one of the harness's, which takes the spools with it that its traces name.
    let copy = tempfile::tempdir().expect("a fresh folder");
    for trace in traces_in(rec) {
        std::fs::copy(&trace, copy.path().join(trace.file_name().expect("a name"))).expect("a copy");
    }
    let json = copy.path().join("snapshot.json");
    let _ = analyze(copy.path(), &json, &["--allocations", "all"]).success();
    Snapshot::load(&json).processes[0].allocations.iter().filter(|a| a.size == size).count()
}

/// What a thread recorded before it fell idle is in the trace while the program runs on.
#[test]
fn idle_threads_are_looked_at() {
    let folder = TempDir::new().expect("a fresh folder");
    let record = Record::new([program::c("idles", &["-fno-builtin", "-pthread"])]);
    let mut command = record.command_in(folder.path()).command();
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
    let mut said = [0; 5];
    child.stdout.take().expect("its output").read_exact(&mut said).expect("it says so");
    let deadline = Instant::now() + Duration::from_secs(60);
    while written(&folder.path().join("rec"), 77_001) < 10 {
        assert!(Instant::now() < deadline, "the idle thread's blocks are not in the trace");
        std::thread::sleep(Duration::from_millis(50));
    }
    drop(child.stdin.take());
    assert!(child.wait().expect("it ends").success());
}
