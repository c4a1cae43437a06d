//! Programs that record themselves by their global allocator, dynamically and statically linked.

#[path = "harness/example.rs"]
mod example;

use example::example;
use memscope_tests::{Cmd, Process, Record, Snapshot, artifacts, recording};
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use tempfile::TempDir;

/// The program, linked statically.
static STATIC: LazyLock<PathBuf> = LazyLock::new(|| {
    let mut build = Command::new(env!("CARGO"));
    build.current_dir(env!("CARGO_MANIFEST_DIR")).args(["rustc", "--locked", "--quiet", "-p", "memscope-rs"]);
    build.args(["--features", "allocator", "--example", "recording_itself_static"]);
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    let output = build.args(["--", "-Ctarget-feature=+crt-static"]).output().expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    example("recording_itself_static")
});

fn dynamic() -> PathBuf {
    example("recording_itself")
}

/// Runs a program that records itself, with these arguments and this exit status.
#[track_caller]
fn run(program: &Path, argument: &str, status: i32) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let command = Cmd::new([program.as_os_str(), argument.as_ref()]);
    let ran = command.env("MEMSCOPE_OUTPUT", folder.path().join("rec")).run();
    assert_eq!(ran.code(), status, "{ran:?}");
    folder
}

#[track_caller]
fn analysed(folder: &TempDir) -> Snapshot {
    let json = folder.path().join("snapshot.json");
    let ran = recording::analyze(&folder.path().join("rec"), &json, &["--allocations", "all"]);
    assert_eq!(ran.code(), 0, "{ran:?}");
    Snapshot::load(&json)
}

#[track_caller]
fn check(process: &Process, kept: &str) {
    assert!(process.complete, "{:?}", process.incomplete_reason);
    let end = |size| process.one_sized(size).freed_by.as_str();
    assert_eq!((end(1009), end(2003), end(3001)), (kept, "realloc", "free"));
    assert_eq!(process.sized(5003).len(), 12_000);
    assert_eq!((process.stats.threads, process.stats.unknown_frees, process.stats.lost_events), (5, 0, 0));
    let tracked = process.one_sized(4001);
    assert_eq!(
        tracked.var_name.as_deref(),
        Some("Vec::with_capacity(4001)"),
        "named as under the interposer"
    );
    let grown = process.one_sized(8004);
    assert_eq!((&grown.var_name, grown.freed_by.as_str()), (&tracked.var_name, "free"));
    let names = process.names(process.one_sized(1009));
    assert!(names.iter().any(|name| name.ends_with("::allocate")), "{names:?}");
    assert!(names.last().is_some_and(|name| name == "_start"), "{names:?}");
    assert!(!names.iter().any(|name| name.contains("memscope")), "no frame of ours: {names:?}");
}

/// The program is its own recorder, or another one's: what is to be the same.
#[track_caller]
fn check_all_ends(program: &Path) {
    let returned = analysed(&run(program, "", 0));
    assert_eq!((returned.processes[0].end.as_str(), returned.processes[0].exit_code), ("exit", Some(0)));
    check(&returned.processes[0], "free");
    let exited = analysed(&run(program, "exit", 7));
    assert_eq!((exited.processes[0].end.as_str(), exited.processes[0].exit_code), ("exit", Some(7)));
    check(&exited.processes[0], "exit");
    check(&analysed(&run(program, "abort", 134)).processes[0], "exit");
}

#[test]
fn a_program_records_itself() {
    check_all_ends(&dynamic());
}

#[test]
fn a_static_program_records_itself() {
    let file = Command::new("readelf").arg("-d").arg(&*STATIC).output().unwrap();
    assert!(!String::from_utf8_lossy(&file.stdout).contains("NEEDED"), "it is static");
    check_all_ends(&STATIC);
}

#[test]
fn a_forked_child_has_its_own_trace() {
    for program in [&dynamic(), &*STATIC] {
        let snapshot = analysed(&run(program, "fork", 0));
        assert_eq!(snapshot.processes.len(), 2);
        for process in &snapshot.processes {
            assert_eq!(process.sized(6007).len(), 1, "{}", process.pid);
        }
        check(&snapshot.processes[0], "free");
        assert_eq!(snapshot.processes[1].stats.unknown_frees, 0);
    }
}

/// The program without a recording: it runs as it would by itself.
#[track_caller]
fn run_unrecorded(command: Cmd, stderr: &str) {
    let ran = command.run();
    assert_eq!(ran.code(), 0, "{ran:?}");
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    let lines = usize::from(!stderr.is_empty());
    assert!(said.lines().count() == lines && said.starts_with(stderr), "{said}");
}

#[test]
fn what_is_not_recorded_is_passed_on() {
    for program in [&dynamic(), &*STATIC] {
        let command = Cmd::new([program.as_os_str(), "large".as_ref()]);
        run_unrecorded(command.env("MEMSCOPE_OUTPUT", "/proc/nowhere/x"), "memscope: not recording: ");
    }
}

#[test]
fn a_child_that_is_not_followed_is_passed_on() {
    for program in [&dynamic(), &*STATIC] {
        let folder = tempfile::tempdir().unwrap();
        let command = Cmd::new([program.as_os_str(), "fork_large".as_ref()]).env("MEMSCOPE_FOLLOW", "0");
        run_unrecorded(command.env("MEMSCOPE_OUTPUT", folder.path().join("rec")), "");
        assert_eq!(analysed(&folder).processes.len(), 1);
    }
}

#[test]
fn a_killed_programs_trace_is_completed() {
    for program in [&dynamic(), &*STATIC] {
        let folder = tempfile::tempdir().unwrap();
        let command = Cmd::new([program.as_os_str(), "wait".as_ref()]);
        let command = command.env("MEMSCOPE_OUTPUT", folder.path().join("rec"));
        let mut child = command.command().stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "waiting\n");
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9));
        let snapshot = analysed(&folder);
        assert_eq!(snapshot.processes.len(), 1);
        check(&snapshot.processes[0], "exit");
    }
}

#[test]
fn it_exports_when_asked() {
    let folder = tempfile::tempdir().unwrap();
    let export = folder.path().join("own.json");
    let ran = Cmd::new([STATIC.as_os_str()])
        .env("MEMSCOPE_OUTPUT", folder.path().join("rec"))
        .env("MEMSCOPE_CLI", artifacts::cli())
        .env("MEMSCOPE_AUTO_EXPORT", "1")
        .env("MEMSCOPE_EXPORT_PATH", &export)
        .run();
    assert_eq!(ran.code(), 0, "{ran:?}");
    assert_eq!(Snapshot::load(&export).processes[0].sized(1009).len(), 1);
}

#[test]
fn where_the_interposer_is_it_passes_on() {
    let recorded = Record::new([dynamic()]).success();
    assert_eq!(recorded.traces().len(), 1, "one recorder a process");
    check(&recorded.process(), "free");
}
