//! How processes end, what happens after main, and what a fork inherits.

use memscope_tests::recording::analyze;
use memscope_tests::snapshot::Process;
use memscope_tests::{Cmd, Record, Snapshot, TempDir, artifacts, program};

/// (how, the run's exit status, the snapshot's `end`, whether `atexit` handlers run).
const ENDS: [(&str, i32, &str, bool); 9] = [
    ("return", 3, "exit", true),
    ("exit", 4, "exit", true),
    ("_exit", 5, "_exit", false),
    ("_Exit", 6, "_exit", false),
    ("quick_exit", 7, "exit", true),
    ("exit_group", 8, "_exit", false),
    ("abort", 128 + 6, "signal", false),
    ("kill", 128 + 9, "signal", false),
    ("fault", 128 + 11, "signal", false),
];

#[track_caller]
fn assert_events(process: &Process, handlers: bool, how: &str) {
    assert!(process.complete, "{how}: {:?}", process.incomplete_reason);
    assert_eq!(process.sized(40).len(), 60_000, "{how}");
    assert_eq!(process.one_sized(10007).freed_by, "exit", "{how}");
    assert_eq!(process.one_sized(10009).freed_by, if handlers { "free" } else { "exit" }, "{how}");
    assert_eq!(process.sized(10037).len(), usize::from(handlers), "{how}");
}

#[test]
fn whatever_was_recorded_is_there() {
    for (how, status, end, handlers) in ENDS {
        let recorded = Record::new([program::c("ends", &[])]).arg(how).with_code(status);
        let process = recorded.process();
        assert_eq!(process.end, end, "{how}");
        let (code, signal) = if status > 128 { (None, Some(status - 128)) } else { (Some(status), None) };
        assert_eq!((process.exit_code, process.signal), (code, signal), "{how}");
        assert_events(&process, handlers, how);
    }
}

/// By hand nobody waits for the process, but what it recorded is there all the same.
#[test]
fn by_hand_too() {
    use memscope_tests::recording::analyze;
    for (how, status, end, handlers) in ENDS {
        let recorded = Record::new([program::c("ends", &[])]).arg(how).by_hand().with_code(status);
        let json = recorded.folder.path().join("out.json");
        let _ = analyze(&recorded.dir(), &json, &["--allocations", "all"]).success();
        let snapshot = Snapshot::load(&json);
        assert_events(&snapshot.processes[0], handlers, how);
        if end == "exit" {
            assert_eq!(snapshot.processes[0].exit_code, Some(status), "{how}");
        }
        // A return, exit and quick_exit export by themselves.
        assert_eq!(recorded.folder.path().join("by-hand.json").exists(), handlers, "{how}");
    }
}

/// An exec ends one image and begins another, in the same process.
#[test]
fn exec_begins_another_image() {
    let recorded = Record::new([program::c("ends", &[])]).arg("exec").with_code(9);
    let snapshot = recorded.snapshot();
    let [before, after] = &snapshot.processes[..] else { panic!("{} images", snapshot.processes.len()) };
    assert_eq!((before.end.as_str(), before.exit_code, before.signal), ("exec", None, None));
    assert_events(before, false, "exec");
    // The shell ends with `_exit`.
    assert_eq!((after.end.as_str(), after.exit_code), ("_exit", Some(9)));
    assert_eq!(before.pid, after.pid);
    assert!(before.end_time <= after.start_time + 1_000_000, "{} and {}", before.end_time, after.start_time);
    assert_eq!(after.args, ["sh", "-c", "exit 9"]);
}

/// Static and thread-local objects are destroyed after main, some of them after our own destructors.
#[test]
fn after_main() {
    for record in
        [Record::new([program::cxx("late", &[])]), Record::new([program::cxx("late", &[])]).by_hand()]
    {
        let process = record.success().process();
        for size in [10007, 10009, 10037, 10039, 10061, 10063, 10067, 10011, 10069, 10079] {
            assert_eq!(process.one_sized(size).freed_by, "free", "{size}");
        }
        assert_eq!(process.stats.unknown_frees, 0);
    }
}

/// They are process images as well, if empty ones.
#[test]
fn forked_children_that_call_nothing() {
    let program = program::c("quiet_children", &[]);
    for how in ["_exit", "exit", "quick_exit", "return"] {
        let command = [program.as_os_str(), how.as_ref(), "5".as_ref()];
        assert_quiet_children(&Record::new(command).success().snapshot(), how);
        let folder = TempDir::new().expect("a fresh folder");
        let (rec, json) = (folder.path().join("rec"), folder.path().join("out.json"));
        let by_hand = Cmd::new(command).env("LD_PRELOAD", artifacts::library()).env("MEMSCOPE_OUTPUT", &rec);
        let _ = by_hand.run().success();
        let _ = analyze(&rec, &json, &[]).success();
        assert_quiet_children(&Snapshot::load(&json), how);
    }
}

#[track_caller]
fn assert_quiet_children(snapshot: &Snapshot, how: &str) {
    assert!(snapshot.complete, "{how}: {:?}", snapshot.incomplete_reason);
    let [parent, children @ ..] = &snapshot.processes[..] else { panic!("{how}: no image") };
    assert_eq!(children.len(), 5, "{how}");
    let end = if how == "_exit" { "_exit" } else { "exit" };
    for child in children {
        assert_eq!((child.end.as_str(), child.exit_code), (end, Some(7)), "{how}");
        assert_eq!((child.parent_pid, child.stats.total_allocations), (parent.pid, 0), "{how}");
    }
}

#[test]
fn a_forked_child() {
    let recorded = Record::new([program::c("forks", &[])]).with_code(12);
    let snapshot = recorded.snapshot();
    assert!(snapshot.complete, "{:?}", snapshot.incomplete_reason);
    let [parent, child] = &snapshot.processes[..] else { panic!("{} images", snapshot.processes.len()) };
    assert_eq!((parent.end.as_str(), parent.exit_code), ("exit", Some(12)));
    assert_eq!((child.end.as_str(), child.exit_code), ("exit", Some(11)));
    assert_eq!(child.parent_pid, parent.pid);
    // Its inherited blocks are neither unknown nor its leaks.
    assert_eq!((child.stats.inherited_frees, child.stats.unknown_frees), (7, 0));
    assert_eq!(child.stats.total_allocations, 3, "the resized one and its own two");
    assert_eq!(child.stats.active_allocations, 1);
    assert_eq!(child.one_sized(20003).freed_by, "exit");
    assert_eq!(child.one_sized(30001).freed_by, "free");
    for i in 0..10 {
        assert_eq!(parent.one_sized(10001 + 2 * i).freed_by, "free");
    }
    assert!(
        parent.sized(20001).is_empty() && parent.sized(20003).is_empty(),
        "the child's are not the parent's"
    );
}
