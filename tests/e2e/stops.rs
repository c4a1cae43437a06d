//! A program that is stopped: memscope-cli stops with it, as the shell expects, and still hears of what happens to it.

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use memscope_tests::TempDir;
use memscope_tests::command::{only_child, signal};
use memscope_tests::{Record, Snapshot};

const DEADLINE: Duration = Duration::from_secs(60);

/// Starts a recorded shell script; gives memscope-cli and the shell's process id.
fn start(script: &str, options: &[&str], folder: &Path) -> (Child, String) {
    let record =
        options.iter().fold(Record::new(["bash", "-c", script]), |record, option| record.option(option));
    let child = record
        .command_in(folder)
        .command()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("memscope-cli");
    // The script says that it runs by a file.
    let ready = folder.join("ready");
    let deadline = Instant::now() + DEADLINE;
    while !ready.exists() {
        assert!(Instant::now() < deadline, "it doesn't start");
        thread::sleep(Duration::from_millis(1));
    }
    let program = only_child(child.id());
    (child, program)
}

/// The state letter of a process.
fn state(pid: &str) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.trim().chars().next()
}

#[track_caller]
fn wait_for_stop(pid: &str) {
    let deadline = Instant::now() + DEADLINE;
    while state(pid) != Some('T') {
        assert!(Instant::now() < deadline, "{pid} doesn't stop: {:?}", state(pid));
        thread::sleep(Duration::from_millis(1));
    }
}

/// The status as `run` ends with it; memscope-cli must end without anybody's doing.
#[track_caller]
fn ends_with(mut child: Child) -> Option<i32> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(status) = child.try_wait().expect("asked") {
            return status.code();
        }
        if Instant::now() >= deadline {
            let state = state(&child.id().to_string());
            child.kill().expect("killed");
            panic!("memscope-cli doesn't end: {state:?}");
        }
        thread::sleep(Duration::from_millis(1));
    }
}

fn ready_in(folder: &Path, rest: &str) -> String {
    format!("echo > '{}'; {rest}", folder.join("ready").display())
}

#[test]
fn a_stopped_program_is_killed() {
    for options in [&[][..], &["--no-thread"]] {
        let folder = TempDir::new().expect("a folder");
        let script = ready_in(folder.path(), "read < <(exec sleep 100)");
        let (child, program) = start(&script, options, folder.path());
        signal(&program, "STOP");
        wait_for_stop(&child.id().to_string());
        signal(&program, "KILL");
        assert_eq!(ends_with(child), Some(128 + 9), "{options:?}");
        let process = Snapshot::load(&folder.path().join("rec/snapshot.json")).processes.remove(0);
        assert_eq!((process.end.as_str(), process.signal), ("signal", Some(9)), "{options:?}");
    }
}

/// A supervisor that loses its patience: what it sends to us while we are stopped comes too late for the program, and is not our end.
#[test]
fn a_stopped_program_is_terminated_and_killed() {
    let folder = TempDir::new().expect("a folder");
    let script = ready_in(folder.path(), "while :; do :; done");
    let (child, program) = start(&script, &[], folder.path());
    signal(&program, "STOP");
    wait_for_stop(&child.id().to_string());
    signal(&child.id().to_string(), "TERM");
    signal(&program, "KILL");
    assert_eq!(ends_with(child), Some(128 + 9));
    let process = Snapshot::load(&folder.path().join("rec/snapshot.json")).processes.remove(0);
    assert_eq!((process.end.as_str(), process.signal), ("signal", Some(9)));
}

/// Somebody who knows the program continues it and not us.
#[test]
fn a_stopped_program_is_continued_alone() {
    let folder = TempDir::new().expect("a folder");
    let script = ready_in(folder.path(), "kill -s STOP $$; exit 7");
    let (child, program) = start(&script, &[], folder.path());
    wait_for_stop(&program);
    wait_for_stop(&child.id().to_string());
    signal(&program, "CONT");
    assert_eq!(ends_with(child), Some(7));
}

/// As the shell does it for Ctrl-Z, `fg` and `kill %1`: by signals to the whole group.
#[test]
fn the_terminal_stops_the_group() {
    let folder = TempDir::new().expect("a folder");
    let script = ready_in(folder.path(), "while :; do :; done");
    let (child, program) = start(&script, &[], folder.path());
    let (own, group) = (child.id().to_string(), format!("-{}", child.id()));
    for _ in 0..3 {
        signal(&group, "TSTP");
        wait_for_stop(&program);
        wait_for_stop(&own);
        thread::sleep(Duration::from_millis(200));
        assert_eq!((state(&program), state(&own)), (Some('T'), Some('T')), "both stay stopped");
        signal(&group, "CONT");
        let deadline = Instant::now() + DEADLINE;
        while [state(&program), state(&own)].contains(&Some('T')) {
            assert!(Instant::now() < deadline, "they go on");
            thread::sleep(Duration::from_millis(1));
        }
    }
    signal(&group, "TERM");
    assert_eq!(ends_with(child), Some(128 + 15));
}
