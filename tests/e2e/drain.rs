//! `run --no-thread`: memscope-cli drains what the program's threads record, and no event is lost or counted twice,
//! whoever dies meanwhile.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use memscope_tests::TempDir;
use memscope_tests::recording::{analyze, traces_in};
use memscope_tests::said::Said;
use memscope_tests::snapshot::Stats;
use memscope_tests::{Record, Snapshot, program};

use crate::kill::JUST_BEGAN;

/// The program, under `run --no-thread`.
pub fn drained(words: &[&str]) -> Record {
    let argv = words.iter().fold(vec![program()], |mut argv, word| {
        argv.push(PathBuf::from(word));
        argv
    });
    Record::new(argv).option("--no-thread").allocations("none")
}

pub fn program() -> PathBuf {
    program::c("drained", &[])
}

/// What the program said about itself.
pub fn told(said: &[u8], who: &str, what: &str) -> u64 {
    let said = Said::parse(said);
    let number = said.others.iter().find_map(|line| line[who][what].as_u64());
    number.unwrap_or_else(|| panic!("{who} said nothing of {what}: {:?}", said.others))
}

/// What the process allocates beside the blocks that it tells of.
pub fn beside(words: &[&str]) -> u64 {
    drained(words).success().process().stats.total_allocations
}

#[track_caller]
pub fn assert_exact(stats: &Stats, blocks: u64, beside: u64) {
    assert_eq!(stats.total_allocations, blocks + beside, "{blocks} blocks, {beside} others: {stats:?}");
    assert_eq!((stats.lost_events, stats.unknown_frees), (0, 0), "{stats:?}");
}

/// There is no thread of ours, and the program writes nothing while it records more than its buffers hold: so somebody
/// else has written it. Everything is counted.
#[test]
fn the_program_does_not_write() {
    for threads in ["1", "4"] {
        let recorded = drained(&[threads, "quiet"]).success();
        let said = &recorded.ran.stdout;
        assert_eq!(told(said, "parent", "quiet"), 1, "it wrote in every round");
        assert_eq!(told(said, "parent", "tasks").to_string(), threads, "threads");
        let blocks = told(said, "parent", "blocks");
        assert_exact(&recorded.process().stats, blocks, beside(&[threads, "0"]));
    }
}

/// After a filter for all its threads the program makes no system call of ours, and needs none.
#[test]
fn a_filter_for_all_threads() {
    let argv = [program::c("circumstances", &[]), "seccomp_flood".into()];
    let process = Record::new(argv).option("--no-thread").allocations("none").with_code(7).process();
    assert_exact(&process.stats, 5_000 + 60_000 + 1_000_000, 3);
}

/// The same program with our thread in it gives the same numbers.
#[test]
fn the_numbers_are_those_of_our_thread() {
    let drained = drained(&["1", "6"]);
    let stats = drained.success().process().stats;
    let with = Record::new([program(), "1".into(), "6".into()]).allocations("none").success().process().stats;
    let numbers = |s: &Stats| {
        (
            s.total_allocations,
            s.total_allocated,
            s.total_deallocated,
            s.peak_memory,
            s.active_memory,
            s.threads,
        )
    };
    assert_eq!(numbers(&stats), numbers(&with));
}

/// What an idle thread has recorded is in the trace soon, though the thread does nothing.
#[test]
fn idle_threads_are_drained() {
    let folder = TempDir::new().expect("a folder");
    let mut child = start(&drained(&["1", "idle"]), folder.path());
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    assert!(lines.next().expect("a line").expect("text").contains("idle"));
    let json = folder.path().join("now.json");
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let _ = analyze(&folder.path().join("rec"), &json, &["--allocations", "all"]).success();
        let process = Snapshot::load(&json).processes.remove(0);
        assert_eq!(process.end, "running");
        if process.allocations.iter().filter(|a| a.size == 54_321).count() == 10 {
            break;
        }
        assert!(Instant::now() < deadline, "nobody has drained it: {:?}", process.stats);
        thread::sleep(Duration::from_millis(50));
    }
    drop(child.stdin.take());
    assert!(child.wait().expect("it ends").success());
}

/// A child has a spool of its own, which is drained as well.
#[test]
fn children() {
    let recorded = drained(&["2", "child", "5"]).success();
    let snapshot = recorded.snapshot();
    assert!(snapshot.complete, "{:?}", snapshot.incomplete_reason);
    let alone = drained(&["2", "child", "0"]).success().snapshot();
    for (at, who) in ["parent", "child"].into_iter().enumerate() {
        let beside = alone.processes[at].stats.total_allocations;
        assert_exact(&snapshot.processes[at].stats, told(&recorded.ran.stdout, who, "blocks"), beside);
    }
    let only = drained(&["1", "child", "3"]).option("--no-follow").success();
    let blocks = told(&only.ran.stdout, "parent", "blocks");
    assert_exact(&only.process().stats, blocks, beside(&["1", "0"]));
}

/// A process that outlives the first one is let go, and its own threads write from then on.
#[test]
fn a_process_that_outlives_the_first() {
    let folder = TempDir::new().expect("a folder");
    let mut child = start(&drained(&["2", "outlives", "8"]), folder.path());
    let mut said = Vec::new();
    child.stdout.take().expect("piped").read_to_end(&mut said).expect("read to the end of both");
    assert!(child.wait().expect("it ends").success());
    let snapshot = analyzed(folder.path());
    let alone = drained(&["2", "child", "0"]).success().snapshot();
    assert_eq!(snapshot.processes.len(), 2);
    let (of, beside) = (&snapshot.processes[1].stats, alone.processes[1].stats.total_allocations);
    assert_exact(of, told(&said, "child", "blocks"), beside);
}

/// memscope-cli is killed at some moment: the program goes on, writes its own trace, and nothing is missing or there twice.
#[test]
fn memscope_is_killed() {
    let beside = beside(&["3", "0"]);
    for wait in [0, 20, 60, 130, 250, 400] {
        let folder = TempDir::new().expect("a folder");
        let mut child = start(&drained(&["3", "15"]), folder.path());
        let mut pipe = child.stdout.take().expect("piped");
        let deadline = Instant::now() + Duration::from_secs(60);
        while !is_growing(&folder.path().join("rec")) {
            assert!(Instant::now() < deadline, "nothing is recorded");
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(Duration::from_millis(wait));
        child.kill().expect("killed");
        let _ = child.wait().expect("it ends");
        let mut said = Vec::new();
        pipe.read_to_end(&mut said).expect("the program's output, to its end");
        let blocks = told(&said, "parent", "blocks");
        assert_eq!(blocks, 3 * 15 * 100_000, "it goes on as if nothing had happened");
        let snapshot = analyzed(folder.path());
        assert_exact(&snapshot.processes[0].stats, blocks, beside);
    }
}

/// The program is killed: what was not drained yet is in its spool.
#[test]
fn the_program_is_killed() {
    let record = Record::new([program::c("reports_blocks", &[])]).option("--no-thread");
    for wait in [30, 90, 200] {
        let folder = TempDir::new().expect("a folder");
        let mut child = start(&record, folder.path());
        let pid = memscope_tests::command::only_child(child.id());
        let mut pipe = child.stdout.take().expect("piped");
        let reader = thread::spawn(move || {
            let mut told = Vec::new();
            drop(pipe.read_to_end(&mut told));
            told.len() as u64 / 16
        });
        thread::sleep(Duration::from_millis(wait));
        memscope_tests::command::signal(&pid, "KILL");
        let _ = child.wait().expect("it ends");
        let told = reader.join().expect("a reader");
        let rec = folder.path().join("rec");
        if !rec.exists() || traces_in(&rec).is_empty() {
            assert_eq!(told, 0);
            continue;
        }
        let process = Snapshot::load(&rec.join("snapshot.json")).processes.remove(0);
        assert_eq!((process.end.as_str(), process.signal), ("signal", Some(9)));
        let why = process.incomplete_reason.as_deref().unwrap_or_default();
        let just_began = told == 0 && process.stats.total_allocations == 0 && why.contains(JUST_BEGAN);
        assert!(process.complete || just_began, "{wait} ms: {why}, {told} blocks were told of");
        assert!(process.stats.total_allocations >= told, "{told} blocks were told of: {:?}", process.stats);
        assert_eq!(process.stats.unknown_frees, 0);
    }
}

pub fn start(record: &Record, folder: &Path) -> Child {
    let mut command = record.command_in(folder).command();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("started")
}

/// Whether there is a trace that holds more than its beginning.
pub fn is_growing(recording: &Path) -> bool {
    recording.exists()
        && traces_in(recording).iter().any(|trace| std::fs::metadata(trace).is_ok_and(|m| m.len() > 16 << 10))
}

/// What `analyze` makes of a recording whose processes may be on their way out.
pub fn analyzed(folder: &Path) -> Snapshot {
    let json = folder.join("out.json");
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let _ = analyze(&folder.join("rec"), &json, &["--allocations", "none"]).success();
        let snapshot = Snapshot::load(&json);
        if snapshot.processes.iter().all(|process| process.end != "running") {
            assert!(snapshot.complete, "{:?}", snapshot.incomplete_reason);
            return snapshot;
        }
        assert!(Instant::now() < deadline, "it does not end");
        thread::sleep(Duration::from_millis(20));
    }
}
