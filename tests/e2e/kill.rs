//! SIGKILL at any moment: what the program itself told of before is on record.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::Read;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use memscope_tests::TempDir;
use memscope_tests::command::only_child;
use memscope_tests::recording::{self, analyze};
use memscope_tests::snapshot::Stats;
use memscope_tests::{Cmd, Record, Snapshot, artifacts, program};
use serde::Deserialize;

/// When the program is killed: after this time, and once it has told of so many blocks.
#[derive(Clone, Copy)]
struct When {
    wait: Duration,
    told: usize,
}

impl When {
    const fn after(wait: Duration) -> Self {
        Self { wait, told: 0 }
    }
}

/// Bytes that a block is told of by.
const TELLING: usize = 16;

/// Reads to the end; `so_far` says how much there is by now.
fn read_all(mut from: impl Read, so_far: &AtomicUsize) -> Vec<u8> {
    let (mut all, mut part) = (Vec::new(), [0; 4096]);
    while let Ok(n @ 1..) = from.read(&mut part) {
        all.extend_from_slice(&part[..n]);
        so_far.store(all.len(), Ordering::Relaxed);
    }
    all
}

/// Starts the program, kills it after a while, and gives what it told of.
fn told_before_the_kill(
    record: &Record,
    folder: &TempDir,
    when: When,
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
    let pipe = child.stdout.take().expect("piped");
    let so_far = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&so_far);
    let reader = thread::spawn(move || read_all(pipe, &seen));
    thread::sleep(when.wait);
    let deadline = Instant::now() + Duration::from_secs(60);
    while so_far.load(Ordering::Relaxed) < when.told * TELLING {
        assert!(Instant::now() < deadline, "it tells of nothing");
        thread::sleep(Duration::from_millis(1));
    }
    memscope_tests::command::signal(&pid_of(child.id()), "KILL");
    let _ = child.wait().expect("it ends");
    let bytes = reader.join().expect("a reader");
    bytes
        .chunks_exact(TELLING)
        .map(|pair| {
            let word = |at: usize| u64::from_le_bytes(pair[at..at + 8].try_into().expect("eight bytes"));
            (word(0), word(8))
        })
        .collect()
}

/// What is looked at of a snapshot. (Checking all of each against the schema would take longer than all the rest.)
#[derive(Deserialize)]
struct Killed {
    complete: bool,
    incomplete_reason: Option<String>,
    processes: Vec<Image>,
}

#[derive(Deserialize)]
struct Image {
    end: String,
    signal: Option<i32>,
    stats: Stats,
    allocations: Vec<Block>,
}

#[derive(Deserialize)]
struct Block {
    ptr: u64,
    size: u64,
}

/// What is said of a process that was killed before it had published its trace.
pub const JUST_BEGAN: &str = "its process ended as its recording began";

/// The snapshot has every block that was told of; now and then it is checked whole.
#[track_caller]
fn assert_all_there(json: &Path, told: &[(u64, u64)], when: Duration) -> Killed {
    if when.as_micros().is_multiple_of(10) {
        let _ = Snapshot::load(json);
    }
    let text = std::fs::read(json).expect("a snapshot");
    let snapshot: Killed = serde_json::from_slice(&text).expect("JSON");
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
    let why = snapshot.incomplete_reason.as_deref().unwrap_or_default();
    let just_began = told.is_empty() && process.allocations.is_empty() && why.contains(JUST_BEGAN);
    assert!(snapshot.complete || just_began, "{when:?}: {why}");
    snapshot
}

/// How many moments are tried in all, half of them in each way: `MEMSCOPE_KILL_MOMENTS`, or 200.
fn number() -> u64 {
    std::env::var("MEMSCOPE_KILL_MOMENTS").ok().and_then(|n| n.parse().ok()).unwrap_or(200)
}

/// Different every time: 0 to 30 ms, most of them short, where most happens for the first time.
fn moment(i: u64) -> Duration {
    let mut seed = u64::from(std::process::id()) << 32 | i;
    for _ in 0..4 {
        seed = (seed ^ seed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    }
    let part = (seed >> 40) as f64 / (1_u64 << 24) as f64;
    Duration::from_secs_f64(0.03 * part * part)
}

/// Tries all moments, a few at a time. On a busy machine they may all come too early for much to be told of, so the last one waits
/// for that.
fn at_all_moments(one: impl Fn(When) -> usize + Sync) {
    let next = AtomicU64::new(0);
    let worker = || {
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            if i >= number().div_ceil(2) {
                return;
            }
            let _ = one(When::after(moment(i)));
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..3).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().for_each(|worker| worker.join().expect("no fault"));
    });
    let last = one(When { wait: moment(number()), told: 101 });
    assert!(last > 100, "only {last} blocks were told of");
}

/// `run` completes the trace when the program was killed; the JSON says how it ended.
#[test]
fn under_run() {
    let record = Record::new([program::c("reports_blocks", &[])]);
    at_all_moments(|When { wait, told }| {
        let folder = TempDir::new().expect("a folder");
        // Before that, its child is not yet the program; on a busy machine it may still not be: then there may be no directory, either.
        let when = When { wait: wait + Duration::from_millis(30), told };
        let told = told_before_the_kill(&record, &folder, when, only_child);
        let rec = folder.path().join("rec");
        if !rec.exists() || recording::traces_in(&rec).is_empty() {
            assert!(told.is_empty(), "{wait:?}: no trace, but {} blocks were told of", told.len());
            return 0;
        }
        let snapshot = assert_all_there(&folder.path().join("rec/snapshot.json"), &told, wait);
        let process = &snapshot.processes[0];
        assert_eq!((process.end.as_str(), process.signal), ("signal", Some(9)), "{wait:?}");
        told.len()
    });
}

/// `analyze` brings in what dead processes left, and removes it.
#[track_caller]
fn assert_analyzed(folder: &Path, told: &[(u64, u64)], wait: Duration) {
    let rec = folder.join("rec");
    if !rec.exists() || recording::traces_in(&rec).is_empty() {
        assert!(told.is_empty(), "{wait:?}: no recording, but {} blocks were told of", told.len());
        return;
    }
    let json = folder.join("out.json");
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let _ = analyze(&rec, &json, &["--allocations", "all"]).success();
        // One that we did not wait for may still be on its way out.
        let text = std::fs::read(&json).expect("a snapshot");
        let snapshot: Killed = serde_json::from_slice(&text).expect("JSON");
        if snapshot.processes[0].end != "running" {
            break;
        }
        assert!(Instant::now() < deadline, "{wait:?}: it does not end");
    }
    let snapshot = assert_all_there(&json, told, wait);
    // A second look finds the same: the first one completed the trace.
    let again = folder.join("again.json");
    let _ = analyze(&rec, &again, &["--allocations", "none"]).success();
    assert_eq!(Snapshot::load(&again).processes[0].stats, snapshot.processes[0].stats, "{wait:?}");
}

#[test]
fn by_hand() {
    let record = Record::new([program::c("reports_blocks", &[])]).by_hand();
    at_all_moments(|when| {
        let folder = TempDir::new().expect("a folder");
        let told = told_before_the_kill(&record, &folder, when, |pid| pid.to_string());
        assert_analyzed(folder.path(), &told, when.wait);
        told.len()
    });
}

/// As the OOM killer may: the program and memscope-cli go at once.
#[test]
fn the_whole_group() {
    let record = Record::new([program::c("reports_blocks", &[])]);
    for wait in (0..4).map(moment) {
        let folder = TempDir::new().expect("a folder");
        let when = When::after(wait + Duration::from_millis(100));
        let told = told_before_the_kill(&record, &folder, when, |pid| format!("-{pid}"));
        assert_analyzed(folder.path(), &told, wait);
    }
}

/// The status of a process that somebody else started is its parent's to take; Linux tells it to us, too, since 6.15. Before, the end
/// is unknown.
#[test]
fn a_process_that_is_not_our_child() {
    let folder = TempDir::new().expect("a folder");
    let (said, waits) = (folder.path().join("said"), program::c("waits", &[]));
    // It is killed once `memscope-cli`, the shell's parent, has it open.
    let script = format!(
        "{} {} >{said} & until [ -s {said} ] && grep -qs \"^Pid:.$!$\" /proc/$PPID/fdinfo/*; do sleep 0.05; done\n\
         kill -9 $!; wait $!; exit 5",
        waits.display(),
        folder.path().join("never").display(),
        said = said.display()
    );
    let snapshot = Record::new(["sh", "-c", &script]).with_code(5).snapshot();
    let process = snapshot.processes.iter().find(|p| p.exe.contains("/waits-")).expect("the process");
    assert_eq!(process.one_sized(10007).freed_by, "exit");
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("the kernel's release");
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|n| n.parse::<u32>().ok());
    if (numbers.next(), numbers.next()) >= (Some(6), Some(15)) {
        assert_eq!((process.end.as_str(), process.signal), ("signal", Some(9)));
    } else {
        assert_eq!((process.end.as_str(), process.signal), ("unknown", None));
    }
}

/// Killed as its recording begins: whatever was made by then is found again, and nothing stays in shared memory.
#[test]
fn kills_at_the_start_leave_nothing_behind() {
    let folder = TempDir::new().expect("a fresh folder");
    // A `/dev/shm` of our own: others' recordings are not in it.
    let script = "mount -t tmpfs none /dev/shm; cd \"$1\"
        for i in 1 2 3 4 5 6 7 8; do for wait in 0 0 0.0003 0.0006 0.0009 0.0012 0.0015 0.003; do
            \"$2\" run --quiet --export none -o rec -- sleep 60 2>err & run=$!
            until child=$(cat /proc/$run/task/$run/children) && [ -n \"$child\" ]; do :; done
            until case $(readlink /proc/${child% }/exe) in */memscope-cli) false ;; esac do :; done
            sleep $wait; kill -9 $child
            wait $run || status=$?
            [ $status = 137 ]
            rm -rf rec
        done; done
        ls -A /dev/shm";
    let words = ["unshare", "-m", "sh", "-ec", script, "sh"].map(OsStr::new);
    let ran = Cmd::new(words)
        .arg(folder.path())
        .arg(artifacts::cli())
        .timeout(Duration::from_secs(120))
        .run()
        .success();
    assert_eq!(ran.out(), "", "{}", ran.tail());
}
