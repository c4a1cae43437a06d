//! Limits of the size of files, and of their number, set by the program or before it: it runs as it would, and the recording is exact or says what it lacks.

use memscope_tests::recording::{analyze, traces_in};
use memscope_tests::{Cmd, Record, Recorded, Snapshot, artifacts, program, things};

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
    let cases = ["child_by_number", "child_memory"].map(|case| [false, true].map(|by_hand| (case, by_hand)));
    for (case, by_hand) in cases.into_iter().flatten() {
        let recorded = both(case, by_hand);
        let left = std::fs::read_dir(recorded.dir()).expect("listed").flatten().map(|entry| entry.path());
        let drafts = left.filter(|path| path.extension().is_some_and(|ending| ending == "new"));
        assert_eq!(drafts.count(), 0, "{case}");
        let snapshot = recorded.snapshot();
        let [child] = &snapshot.unrecorded[..] else {
            panic!("by hand: {by_hand}: {:?}", snapshot.unrecorded)
        };
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
            assert!(
                snapshot.complete && snapshot.unrecorded.is_empty(),
                "{case}: {:?}",
                snapshot.incomplete_reason
            );
            let [_, child] = &snapshot.processes[..] else {
                panic!("{case}: {} images", snapshot.processes.len())
            };
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

/// Four threads under a limit in blocks of 512 bytes that was set before the program began; the image of the program, and what the
/// run said.
#[track_caller]
fn limited_before(blocks: u32, pairs: u32, by_hand: bool) -> (Snapshot, String) {
    let program = program::c("limits", &["-pthread"]);
    let script = format!("ulimit -f {blocks}; exec {} threads {pairs}", program.display());
    let record = Record::new(["sh", "-c", &script]).allocations("none");
    let recorded = if by_hand { record.by_hand() } else { record }.success();
    let json = recorded.folder.path().join("out.json");
    let _ = analyze(&recorded.dir(), &json, &["--allocations", "none"]).success();
    (Snapshot::load(&json), recorded.ran.err())
}

/// Room for a few buffers, and for the trace: nothing is lost, and nothing is said.
#[test]
fn less_room_than_all_buffers_take() {
    for by_hand in [false, true] {
        let (snapshot, said) = limited_before(2_000, 20_000, by_hand);
        assert!(snapshot.complete, "{by_hand}: {:?}", snapshot.incomplete_reason);
        let stats = &snapshot.processes.last().expect("the program").stats;
        assert!(stats.total_allocations >= 80_000 && stats.lost_events == 0, "{by_hand}: {stats:?}");
        assert!(by_hand || said.is_empty(), "{said}");
    }
}

/// Room for one buffer, while five threads want one each, and none for the whole trace: what is lost is counted, and each reason said once.
#[test]
fn room_for_one_buffer() {
    let natively = limited_before(200_000, 50_000, false).0;
    let events = |snapshot: &Snapshot| {
        let stats = &snapshot.processes.last().expect("the program").stats;
        stats.total_allocations + stats.total_deallocations + stats.lost_events
    };
    for (blocks, by_hand) in [(200, false), (200, true), (1_000, false)] {
        let (snapshot, said) = limited_before(blocks, 50_000, by_hand);
        let process = snapshot.processes.last().expect("the program");
        assert!(!process.complete && process.stats.lost_events > 0, "{blocks}");
        assert_eq!(events(&snapshot), events(&natively), "{blocks}, by hand: {by_hand}");
        let reason = process.incomplete_reason.clone().unwrap_or_default();
        let mut parts: Vec<_> = reason.split("; ").collect();
        parts.sort_unstable();
        assert!(parts.windows(2).all(|two| two[0] != two[1]), "{reason}");
        assert!(said.lines().filter(|line| line.contains("recording has ended")).count() == 1, "{said}");
    }
}

/// Not even for that: one line says so, and the program is listed.
#[test]
fn no_room_at_all() {
    let (snapshot, said) = limited_before(100, 10, false);
    assert!(said.lines().count() == 1 && said.contains("ulimit -f"), "{said}");
    let [program] = &snapshot.unrecorded[..] else { panic!("{:?}", snapshot.unrecorded) };
    assert_eq!(program.args[1..], ["threads", "10"]);
    assert!(program.reason.contains("file size limit"), "{}", program.reason);
}

/// A limit of open files that memscope-cli can't raise, either: four are enough for a tree and both exports.
#[test]
fn a_hard_limit_of_open_files() {
    let folder = memscope_tests::TempDir::new().expect("a folder");
    std::os::unix::fs::chown(folder.path(), Some(65534), Some(65534)).expect("this test needs root");
    let python = things::python();
    let run = |most: u32| {
        let code = format!(
            "import os, resource, sys\nos.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)\n\
            resource.setrlimit(resource.RLIMIT_NOFILE, ({most}, {most}))\nos.execv(sys.argv[1], sys.argv[1:])"
        );
        let words = ["run", "--quiet", "--export", "both", "-o", "rec", "--", "sh", "-c"];
        let script = "/bin/echo one; /bin/echo two; exit 3";
        let command = Cmd::new([python.as_str(), "-S", "-c", &code]).arg(artifacts::cli());
        command.args(words).arg(script).dir(folder.path()).run()
    };
    for most in [4, 5] {
        let ran = run(most);
        assert_eq!((ran.code(), ran.out().as_str(), ran.err().as_str()), (3, "one\ntwo\n", ""), "{most}");
        let snapshot = Snapshot::load(&folder.path().join("rec/snapshot.json"));
        assert!(
            snapshot.complete && snapshot.processes.len() == 3,
            "{most}: {:?}",
            snapshot.incomplete_reason
        );
        let named =
            |process: &memscope_tests::Process| process.frames.iter().any(|frame| frame.function.is_some());
        assert!(snapshot.processes.iter().all(named), "{most}");
        assert!(folder.path().join("rec/report.html").exists());
        std::fs::remove_dir_all(folder.path().join("rec")).expect("removed");
    }
}
