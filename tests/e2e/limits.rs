//! Limits of the size of files, set by the program or before it: it runs as it would, and the recording is exact or says what it lacks.

use memscope_tests::recording::{analyze, traces_in};
use memscope_tests::{Cmd, Record, Recorded, Snapshot, program, things};

/// The program alone and recorded.
#[track_caller]
fn both(case: &str, by_hand: bool) -> Recorded {
    let argv = [program::c("limits", &[]).into_os_string(), case.into()];
    let native = Cmd::new(&argv).run().success();
    let record = Record::new(&argv);
    let recorded = if by_hand { record.by_hand() } else { record }.run();
    let said = |ran: &memscope_tests::Ran| (ran.code(), ran.out(), ran.err());
    assert_eq!(said(&recorded.ran), said(&native), "{case}");
    recorded
}

/// What was left as notes by processes that could not make a file of it is listed, whoever completes the trace.
#[test]
fn a_child_that_cannot_be_recorded() {
    for by_hand in [false, true] {
        let recorded = both("child_by_number", by_hand);
        let snapshot = recorded.snapshot();
        let [child] = &snapshot.unrecorded[..] else { panic!("by hand: {by_hand}: {snapshot:?}") };
        assert_eq!(child.parent_pid, snapshot.processes[0].pid);
        assert!(child.reason.starts_with("its recording cannot be made: "), "{}", child.reason);
        assert!(snapshot.complete && snapshot.processes.len() == 1, "{:?}", snapshot.incomplete_reason);
    }
}

/// By hand, after the program has given up its rights: our thread still makes the file; without it, `analyze` does.
#[test]
fn a_note_of_a_program_without_rights() {
    let python = things::python();
    let code = "import os, sys\nx = [bytearray(600) for i in range(int(sys.argv[1]))]\nos.setuid(65534)\n\
        os.waitpid(os.posix_spawn('/bin/echo', ['echo', 'spawned'], {}), 0)\n";
    for (blocks, thread) in [("200000", "1"), ("1", "0")] {
        let record =
            Record::new([&python, "-S", "-c", code, blocks]).by_hand().env("MEMSCOPE_THREAD", thread);
        let recorded = record.success();
        assert_eq!(recorded.ran.out(), "spawned\n");
        let rec = recorded.dir();
        assert_eq!(traces_in(&rec).len(), 1);
        let json = recorded.folder.path().join("out.json");
        let _ = analyze(&rec, &json, &["--allocations", "none"]).success();
        let snapshot = Snapshot::load(&json);
        let [echo] = &snapshot.unrecorded[..] else { panic!("{thread}: {:?}", snapshot.unrecorded) };
        assert_eq!(echo.args, ["echo", "spawned"]);
        assert!(snapshot.complete, "{:?}", snapshot.incomplete_reason);
    }
}

/// A forked child whose first deed it is to take something out of its own reach: it is on record, with all that it does.
#[test]
fn a_child_that_begins_with_a_limit() {
    for case in ["child", "child_leaves", "child_filters"] {
        for by_hand in [false, true] {
            let snapshot = both(case, by_hand).snapshot();
            assert!(snapshot.complete && snapshot.unrecorded.is_empty(), "{case}: {snapshot:?}");
            let [_, child] = &snapshot.processes[..] else { panic!("{case}: {snapshot:?}") };
            assert_eq!((child.sized(40).len(), child.stats.lost_events), (1000, 0), "{case}");
        }
    }
}

/// A limit that takes nothing away costs nothing: no buffers are made ahead.
#[test]
fn a_limit_that_stays() {
    let recorded = both("often", false);
    assert_eq!(recorded.process().sized(40).len(), 1001);
    let program = program::c("limits", &[]);
    let log = recorded.folder.path().join("log");
    let strace = ["strace", "-f", "-qq", "-e", "trace=fallocate", "-o"].map(std::ffi::OsString::from);
    let words = [log.clone().into(), program.into_os_string(), "often".into()];
    let _ = Record::new(strace.into_iter().chain(words)).success();
    let calls = std::fs::read_to_string(&log).expect("what was traced").lines().count();
    assert!((1..8).contains(&calls), "buffers were made {calls} times");
}
