//! Forks: from threads, in signal handlers, by number, and children that go on or end meanwhile.

use std::collections::HashMap;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use memscope_tests::recording::analyze;
use memscope_tests::{Cmd, Record, Snapshot, TempDir, artifacts, program};

/// Checks the children of `families`: exact counts, none missing.
#[track_caller]
fn assert_family(snapshot: &Snapshot, children: usize) {
    assert!(snapshot.complete, "{:?}", snapshot.incomplete_reason);
    let parent = &snapshot.processes[0];
    assert_eq!(parent.stats.unknown_frees, 0);
    assert!(parent.sized(10007).iter().all(|block| block.freed_by == "free"), "the child's free is its own");
    assert!(parent.sized(20011).is_empty(), "the children's are not the parent's");
    assert_eq!(snapshot.processes.len(), 1 + children, "process images");
    let mut ends: HashMap<(&str, Option<i32>), usize> = HashMap::new();
    for child in &snapshot.processes[1..] {
        *ends.entry((child.end.as_str(), child.exit_code)).or_default() += 1;
        assert_eq!(child.parent_pid, parent.pid);
        if child.allocations_included == "all" {
            assert_eq!(child.one_sized(20011).freed_by, "free");
        }
        assert_eq!(child.one_sized(20021).freed_by, "exit");
        let stats = &child.stats;
        assert_eq!((stats.total_allocations, stats.total_deallocations), (2, 1), "{:?}", child.allocations);
        assert_eq!((stats.inherited_frees, stats.unknown_frees, stats.lost_events), (1, 0, 0));
        assert_eq!(stats.threads, 1);
    }
    assert!(ends.keys().all(|(end, code)| *end == "_exit" && code.is_some()), "{ends:?}");
}

/// A run of `families`.
pub fn family(how: &str, count: &str) -> Record {
    Record::new([program::c("families", &[]).as_os_str(), how.as_ref(), count.as_ref()])
}

#[test]
fn of_a_threaded_program() {
    let recorded = family("threads", "60").allocations("live").success();
    assert_eq!(recorded.ran.out(), "");
    assert_family(&recorded.snapshot(), 60);
}

/// The handler of a signal forks while the program allocates; the child goes on in the middle of that call, which is
/// nobody's, and frees what came of it.
#[test]
fn in_a_signal_handler() {
    assert_forks_in_a_signal_handler("signals");
}

#[test]
fn by_number_in_a_signal_handler() {
    for how in ["numbers", "clone", "clone3"] {
        assert_forks_in_a_signal_handler(how);
    }
}

fn assert_forks_in_a_signal_handler(how: &str) {
    let recorded = family(how, "60").allocations("live").success();
    assert_eq!(recorded.ran.out(), "");
    let snapshot = recorded.snapshot();
    assert!(snapshot.complete, "{:?}", snapshot.incomplete_reason);
    assert_eq!(snapshot.processes.len(), 61);
    let parent = &snapshot.processes[0];
    assert_eq!((parent.stats.unknown_frees, parent.stats.active_allocations), (0, 0));
    for child in &snapshot.processes[1..] {
        let stats = &child.stats;
        assert_eq!(child.parent_pid, parent.pid);
        assert_eq!(child.one_sized(20021).freed_by, "exit");
        assert_eq!(child.names(child.one_sized(20021))[..3], ["child_work", "child", "signals"]);
        assert_eq!((stats.active_allocations, stats.unknown_frees, stats.lost_events), (1, 0, 0));
        // One turn of the loop may still come.
        assert!((2..=3).contains(&stats.total_allocations), "{stats:?}");
        assert!((1..=2).contains(&stats.inherited_frees), "{stats:?}");
    }
}

/// The same where the stacks are walked along those that were seen before: the child has nothing of its parent's.
#[test]
fn in_a_signal_handler_on_many_paths() {
    let recorded = family("paths", "100").allocations("live").success();
    assert_eq!(recorded.ran.out(), "");
    let snapshot = recorded.snapshot();
    assert!(snapshot.complete, "{:?}", snapshot.incomplete_reason);
    assert_eq!(snapshot.processes.len(), 101);
    for child in &snapshot.processes[1..] {
        assert_eq!(child.names(child.one_sized(20021))[..3], ["child_work", "child", "signals"]);
        assert_eq!((child.stats.unknown_frees, child.stats.lost_events), (0, 0));
    }
}

/// A handler that forks may come between any two instructions of a hook, and of what it does in a thread's first call.
#[test]
fn at_any_instruction() {
    let program = program::c("fork_steps", &["-Wl,-z,now"]);
    for (what, stride, fork, least) in [
        ("ordinary", "29", "fork", 100),
        ("path", "101", "_Fork", 60),
        ("first", "101", "number", 200),
        ("deep", "199", "fork", 15),
    ] {
        let recorded = Record::new([program.as_os_str(), what.as_ref(), stride.as_ref(), fork.as_ref()])
            .allocations("live")
            .success();
        assert!(recorded.ran.out().starts_with("{\"children\":"), "{what}: {}", recorded.ran.out());
        let snapshot = recorded.snapshot();
        assert!(snapshot.complete, "{what}: {:?}", snapshot.incomplete_reason);
        let children = snapshot.processes.iter().filter(|process| process.exit_code == Some(3));
        for child in children.clone() {
            assert_eq!(child.one_sized(20021).freed_by, "exit", "{what}");
            assert_eq!((child.stats.unknown_frees, child.stats.lost_events), (0, 0), "{what}");
            // The call that was interrupted may have come to an end only in the child.
            assert!((1..=2).contains(&child.stats.total_allocations), "{what}: {:?}", child.stats);
        }
        let children = children.count();
        assert!(children >= least && children == snapshot.processes.len() - 2, "{what}: {children} children");
    }
    // After a filter a child is not recorded, but lives.
    let recorded =
        Record::new([program.as_os_str(), "sealed".as_ref(), "101".as_ref(), "fork".as_ref()]).success();
    assert!(recorded.ran.out().starts_with("{\"children\":"), "{}", recorded.ran.out());
    let snapshot = recorded.snapshot();
    assert!(snapshot.complete && snapshot.processes.len() == 2, "{:?}", snapshot.incomplete_reason);
}

#[test]
fn by_system_call_and_with_shared_memory() {
    let recorded = family("clones", "").success();
    assert_eq!(recorded.ran.out(), "");
    let snapshot = recorded.snapshot();
    assert_family(&snapshot, 2);
    for size in [30011, 30013] {
        assert_eq!(snapshot.processes[0].one_sized(size).freed_by, "free");
    }
}

#[test]
fn a_thousand_children() {
    let recorded = family("many", "1000").timeout(Duration::from_secs(120)).success();
    assert_eq!(recorded.ran.out(), "");
    assert_family(&recorded.snapshot(), 1000);
}

/// A child that outlives the program is named, keeps recording, and is there when it is asked for later.
#[test]
fn a_child_that_goes_on() {
    let folder = TempDir::new().expect("a folder");
    let (rec, go) = (folder.path().join("rec"), folder.path().join("go"));
    let ran = Cmd::new([artifacts::cli().as_os_str(), "run".as_ref(), "-o".as_ref(), rec.as_os_str()])
        .arg(program::c("families", &[]))
        .arg("outlive")
        .arg(&go)
        .run()
        .success();
    let said = ran.err();
    let line = said.lines().find(|line| line.contains("still running")).unwrap_or_else(|| panic!("{said}"));
    let pid: u32 = line.split_whitespace().find_map(|word| word.parse().ok()).expect("its number");
    let early = Snapshot::load(&rec.join("snapshot.json"));
    if let Some(child) = early.processes.iter().find(|process| process.pid == pid) {
        assert_eq!((child.end.as_str(), child.exit_code), ("running", None));
    }
    std::fs::write(&go, "").expect("a file");
    let deadline = Instant::now() + Duration::from_secs(60);
    while Path::new(&format!("/proc/{pid}")).exists() {
        assert!(Instant::now() < deadline, "it does not end");
        thread::sleep(Duration::from_millis(5));
    }
    let json = folder.path().join("later.json");
    let _ = analyze(&rec, &json, &[]).success();
    let later = Snapshot::load(&json);
    assert!(later.complete, "{:?}", later.incomplete_reason);
    let child = later.processes.iter().find(|process| process.pid == pid).expect("the child");
    assert_eq!(child.one_sized(20011).freed_by, "free");
    for size in [20021, 20031] {
        assert_eq!(child.one_sized(size).freed_by, "exit");
    }
    assert_eq!(child.stats.inherited_frees, 1);
}

/// A child that ends at any moment while the recording is being read: it is running in the snapshot, or its end is known.
#[test]
fn a_child_that_ends_meanwhile() {
    let folder = TempDir::new().expect("a folder");
    for step in (0..48).step_by(3) {
        let rec = folder.path().join(step.to_string());
        let script = format!("sleep 0.{step:03} & exit 0");
        let run = Cmd::new([artifacts::cli()]).args(["run", "-o"]).arg(&rec).args(["sh", "-c", &script]);
        let said = run.run().success().err();
        let snapshot = Snapshot::load(&rec.join("snapshot.json"));
        assert!(snapshot.complete, "{:?}", snapshot.incomplete_reason);
        for process in &snapshot.processes {
            match process.end.as_str() {
                "running" => assert!(said.contains("still running: "), "{said}"),
                "exit" | "_exit" => {}
                "exec" => {
                    let mut others = snapshot.processes.iter().filter(|other| other.pid == process.pid);
                    let known = others.any(|other| other.end != "exec");
                    assert!(known || said.contains("still running: "), "{said}");
                }
                other => panic!("{}: {other}", process.exe),
            }
        }
    }
}
