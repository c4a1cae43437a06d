//! The file systems of recording and shared memory: full, tiny or not there; the recording deleted or moved.

use std::fs;

use memscope_tests::recording::analyze;
use memscope_tests::{Cmd, Record, Snapshot, artifacts};

use crate::circumstances::{ROUNDS, assert_same, assert_work, folder, needs_root, the_program};

/// A script run in a mount namespace of its own.
fn in_own_mounts(script: &str) -> Cmd {
    Cmd::new(["unshare", "-m", "sh", "-ec", script])
}

/// The recording's file system is full: exact up to there, and `analyze` elsewhere says so.
#[test]
fn a_full_disk() {
    let snapshot = on_a_small_disk("grows", "true", "memscope: recording has ended, the program goes on: ");
    let process = &snapshot.processes[0];
    let reason = process.incomplete_reason.clone().unwrap_or_default();
    assert_eq!((process.complete, reason.as_str()), (false, "no space was left for the recording"));
    assert!(process.stats.total_allocations > 5_000 && process.stats.lost_events > 0);
}

/// All of it is in shared memory still: that is said, and it can be analysed when there is room.
#[test]
fn a_full_disk_at_the_end() {
    let snapshot = on_a_small_disk("fills", "cat /dev/zero >>", "memscope: cannot write ");
    let process = &snapshot.processes[0];
    let reason = process.incomplete_reason.clone().unwrap_or_default();
    assert!(
        !process.complete && reason.starts_with("the end of the recording is missing: it waits in /"),
        "{reason}"
    );
    let snapshot = on_a_small_disk("fills", "rm", "memscope: cannot write ");
    let process = &snapshot.processes[0];
    assert_eq!((process.complete, process.sized(40).len(), process.stats.lost_events), (true, 700, 0));
}

/// A program that is started when there is no room is listed, if only by its number.
#[test]
fn a_full_disk_when_a_program_is_started() {
    let snapshot = on_a_small_disk("fills_and_starts", "true", "memscope: not recording: cannot write into ");
    assert_eq!((snapshot.processes.len(), snapshot.unrecorded.len()), (1, 1));
    assert!(snapshot.unrecorded[0].reason.contains("no space"), "{:?}", snapshot.unrecorded[0]);
}

/// Of a recording on a disk of 64 KiB that the program's file shares; `between` is done to that before it is analysed.
#[track_caller]
fn on_a_small_disk(case: &str, between: &str, said: &str) -> Snapshot {
    needs_root();
    let folder = folder();
    let (disk, json) = (folder.path().join("disk"), folder.path().join("out.json"));
    fs::create_dir(&disk).expect("made");
    let script = format!(
        "mount -t tmpfs -o size=64k none {disk}; mount -t tmpfs none /dev/shm; s=0
        {cli} run --quiet --export none -o {disk}/rec {program} {case} {disk}/file || s=$?; echo status $s
        {between} {disk}/file 2>&- || true; {cli} analyze {disk}/rec {json}",
        disk = disk.display(),
        cli = artifacts::cli().display(),
        program = the_program().display(),
        json = json.display(),
    );
    let ran = in_own_mounts(&script).run().success();
    assert_eq!(ran.out(), "worked\nstatus 7\n", "{}", ran.tail());
    assert!(ran.err().starts_with(said), "{}", ran.tail());
    Snapshot::load(&json)
}

/// No `/dev/shm`, or a tiny one: the spool lies beside the trace, or some of it in the process's own memory.
#[test]
fn little_shared_memory() {
    needs_root();
    for mount in ["mount -t tmpfs -o size=64k none /dev/shm", "mount -t tmpfs -o ro none /dev/shm"] {
        let folder = folder();
        let record = Record::new([the_program()]).arg("nothing");
        let words = record.command_in(folder.path());
        let mut argv: Vec<_> = ["unshare", "-m", "sh", "-ec"].map(Into::into).to_vec();
        argv.push(format!("{mount}; exec \"$@\"").into());
        argv.push("sh".into());
        argv.extend(words.argv().iter().cloned());
        let ran = words.with_argv(argv).run().with_code(7);
        assert_eq!((ran.out().as_str(), ran.err().as_str()), ("worked\n", ""), "{mount}");
        let snapshot = Snapshot::load(&folder.path().join("rec/snapshot.json"));
        assert_work(&snapshot.processes[0], mount, ROUNDS);
        let left: Vec<_> = fs::read_dir(folder.path().join("rec")).expect("listed").flatten().collect();
        assert_eq!(left.len(), 2, "a trace and a snapshot: {left:?}");
    }
}

/// The program goes on; nothing is left behind in shared memory.
#[test]
fn the_recording_is_deleted() {
    let folder = folder();
    let rec = folder.path().join("rec");
    let native = Cmd::new([the_program()]).arg("deleted").arg(&rec).run();
    let ran = Record::new([the_program()]).arg("deleted").arg(&rec).command_in(folder.path()).run();
    assert_same(&ran, &native, "deleted");
    assert!(ran.err().lines().all(|line| line.starts_with("memscope: ")), "{}", ran.err());
    assert!(!rec.exists());
}

/// Of every process of the tree: the shell, which ends by `_exit`, is killed, or becomes the program that deletes it.
#[test]
fn nothing_is_left_of_a_recording_that_is_deleted() {
    needs_root();
    let folder = folder();
    let said = |before: &str, code: u32, script: &str| {
        let script = format!(
            "mount -t tmpfs none /dev/shm; s=0; {before} sh -c '{script}' || s=$?; \
            [ $s = {code} ] || echo status $s; ls /dev/shm",
        );
        let ran = in_own_mounts(&script).dir(folder.path()).run().success();
        assert_eq!(ran.out(), "", "{before} {script}: {}", ran.tail());
        assert!(!folder.path().join("rec").exists(), "{before} {script}");
        ran.err()
    };
    let cli = artifacts::cli().display().to_string();
    // After a status of 0, that there is no report is memscope's failure.
    let scripts = [("rm -r rec; exit 3", 3), ("rm -r rec; kill -9 $$", 137), ("exec rm -r rec", 125)];
    for (script, code) in scripts {
        for option in ["", "--no-thread"] {
            let said = said(&format!("{cli} run {option} -o rec --"), code, script);
            assert!(said.contains("rec: it was deleted while the program ran"), "{script}: {said}");
        }
    }
}

/// What was moved away still needs what lies in shared memory.
#[test]
fn the_recording_is_moved() {
    let script = ["sh", "-c", "mv rec moved; exit 0"];
    for record in [Record::new(script), Record::new(script).by_hand()] {
        is_moved(&record);
    }
}

#[track_caller]
fn is_moved(record: &Record) {
    let folder = folder();
    let _ = record.command_in(folder.path()).dir(folder.path()).run();
    let json = folder.path().join("out.json");
    let _ = analyze(&folder.path().join("moved"), &json, &[]).success();
    let snapshot = Snapshot::load(&json);
    assert!(snapshot.complete, "{:?}", snapshot.incomplete_reason);
    assert!(snapshot.processes[0].stats.total_allocations > 0);
}
