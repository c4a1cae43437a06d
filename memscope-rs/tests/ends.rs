//! Programs that end in every way, and what their exports say.

mod harness;

use harness::{Export, Program, export_path, run};
use std::time::{Duration, Instant};

#[test]
fn the_design_documents_example() {
    let folder = tempfile::tempdir().unwrap();
    let ran = run(harness::command("design_document").current_dir(folder.path()));
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stdout.is_empty());
    assert!(
        ran.stderr.contains("exporting to") && ran.stderr.contains("exported 1 variable to"),
        "{}",
        ran.stderr
    );
    let export = Export::load(&folder.path().join("my_memory_analysis.json"));
    let vec = export.one("my_vec");
    assert_eq!((vec.freed_by.as_str(), vec.size, vec.scope.as_str()), ("free", 12, "design_document"));
    assert_eq!(vec.type_name, "alloc::vec::Vec<i32>");
    assert_eq!((export.process.end.as_str(), export.process.exit_code), ("exit", Some(0)));
    let frame = export.frames("my_vec")[0].clone();
    assert!(frame.file.is_some_and(|file| file.ends_with("examples/design_document.rs")));
    assert_eq!(frame.line, Some(12));
}

#[test]
fn a_return_from_main() {
    let ran = Program::new("return").run();
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let export = ran.export();
    assert_eq!(export.one("vec![0_u8; 1000]").freed_by, "free");
    assert_eq!(export.one("String::from(\"dropped\")").freed_by, "free");
    assert_eq!(export.process.stats.active_allocations, 0);
}

#[test]
fn exit_flushes_what_lives() {
    let ran = Program::new("exit").run();
    assert_eq!(ran.code, Some(3));
    let export = ran.export();
    let kept = export.one("vec![0_u8; 1000]");
    assert_eq!((kept.freed_by.as_str(), kept.leaked), ("exit", true));
    assert_eq!(kept.end, Some(export.process.end_time));
    assert_eq!(export.process.exit_code, Some(3));
}

#[test]
fn quick_exit_flushes_too() {
    let ran = Program::new("quick_exit").run();
    assert_eq!(ran.code, Some(4));
    assert_eq!(ran.export().one("vec![0_u8; 1000]").freed_by, "exit");
}

#[test]
fn a_panic_in_main() {
    let ran = Program::new("panic").run();
    assert_eq!(ran.code, Some(101));
    assert!(ran.stderr.contains("on purpose"), "the hook of the standard library runs too");
    let at_panic = ran.panic_export();
    assert_eq!(at_panic.one("vec![0_u8; 1000]").freed_by, "exit", "flushed in the panic's copy");
    assert_eq!(at_panic.process.end, "unknown");
    let at_end = ran.export();
    assert_eq!(at_end.one("vec![0_u8; 1000]").freed_by, "free", "dropped while unwinding");
    assert_eq!(at_end.process.exit_code, Some(101));
}

#[test]
fn a_hook_from_before_still_runs() {
    let ran = Program::new("hook").run();
    assert_eq!(ran.code, Some(101));
    assert!(ran.stderr.contains("the hook that was there before"));
    ran.panic_export();
}

#[test]
fn a_caught_panic_ends_nothing() {
    let ran = Program::new("caught").run();
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let (at_panic, at_end) = (ran.panic_export(), ran.export());
    let (then, later) = (at_panic.one("vec![1_u16; 50]"), at_end.one("vec![1_u16; 50]"));
    assert_eq!((then.freed_by.as_str(), later.freed_by.as_str()), ("exit", "free"));
    assert_eq!(then.start, later.start);
    assert!(later.lifetime_ns >= then.lifetime_ns + 20_000_000, "it lived on");
    assert_eq!(at_end.one("vec![2_u32; 25]").freed_by, "free");
    assert_eq!(at_end.process.stats.active_allocations, 0);
}

#[test]
fn abort_on_panic() {
    // In the second case the stack is unwound up to the function that cannot be left, and then aborts by a second panic; where the
    // compiler has optimised, it aborts before anything is unwound.
    for (end, inner) in [("abort", ["exit"; 2]), ("cannot_unwind", ["free", "exit"])] {
        let ran = Program::new(end).run();
        assert_eq!(ran.signal, Some(6), "{end}: {}", ran.stderr);
        let export = ran.panic_export();
        let freed_by = &export.one("vec![3_u64; 10]").freed_by;
        assert!(inner.contains(&freed_by.as_str()), "{end}: {freed_by}");
        assert_eq!(export.one("vec![0_u8; 1000]").freed_by, "exit", "{end}");
        assert!(!ran.path().exists(), "{end}: an abort runs no exit handlers");
    }
}

#[test]
fn a_panic_in_a_thread() {
    let ran = Program::new("thread").run();
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(ran.panic_export().one("String::from(\"in the thread\")").freed_by, "exit");
    let export = ran.export();
    let variable = export.one("String::from(\"in the thread\")");
    assert_eq!(variable.freed_by, "free");
    assert_ne!(variable.thread, 1);
    assert_eq!(export.one("vec![0_u8; 1000]").thread, 1);
}

#[test]
fn signals_export_and_kill() {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let ran = Program::new("signal").run_and_kill(signal);
        assert_eq!(ran.signal, Some(signal), "{}", ran.stderr);
        let export = ran.export();
        assert_eq!(export.one("vec![0_u8; 1000]").freed_by, "exit");
        assert_eq!((export.process.end.as_str(), export.process.signal), ("signal", Some(signal)));
    }
}

#[test]
fn variables_in_every_place() {
    let ran = Program::new("places").run();
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let export = ran.export();
    for name in ["in_static", "in_mutex", "forgotten"] {
        assert_eq!(export.one(name).freed_by, "exit", "{name}");
    }
    for name in ["in_thread_local", "in_main_thread_local", "String::from(\"tracked in a destructor\")"] {
        assert_eq!(export.one(name).freed_by, "free", "{name}");
    }
}

#[test]
fn a_panic_in_a_drop() {
    let ran = Program::new("drop_panics").run();
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(ran.export().one("guarded").freed_by, "free");
}

#[test]
fn a_forked_childs_end_is_not_the_programs() {
    let ran = Program::new("fork").run();
    assert_eq!((ran.code, ran.stdout.trim()), (Some(0), "child 0"));
    let export = ran.export();
    assert_eq!(export.variables.len(), 1);
    assert_eq!(export.one("vec![0_u8; 1000]").freed_by, "free");
}

#[test]
fn threads_that_still_run() {
    for _ in 0..2 {
        let ran = Program::new("others_run").run();
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        ran.export();
    }
}

#[test]
fn lifetimes_lie_within_the_programs_own_brackets() {
    const SLACK: u64 = 50_000;
    let ran = Program::new("brackets").run();
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let export = ran.export();
    let mut checked = 0;
    for line in ran.stdout.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let (at_least, at_most): (u64, u64) = (words[1].parse().unwrap(), words[2].parse().unwrap());
        let lifetime = export.one(words[0]).lifetime_ns;
        assert!(lifetime + SLACK >= at_least && lifetime <= at_most + SLACK, "{line}: {lifetime}");
        checked += 1;
    }
    assert_eq!(checked, 101);
    assert_eq!(export.one("v0_0").scope, "bracketed");
    let moved = export.one("moved");
    assert_ne!(Some(moved.thread), moved.end_thread);
}

#[test]
fn a_future_that_changes_threads() {
    let ran = Program::new("tasks").run();
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(ran.export().one("vec![9_u8; 90]").size, 90);
}

#[test]
fn the_environment_asks_for_exports() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = harness::command("ends");
    command.arg("none").current_dir(folder.path());
    let ran = run(&mut command);
    assert_eq!((ran.code, std::fs::read_dir(folder.path()).unwrap().count()), (Some(0), 0), "{}", ran.stderr);
    let ran = run(command.env("MEMSCOPE_AUTO_EXPORT", "1"));
    assert_eq!(ran.code, Some(0));
    Export::load(&folder.path().join("memscope_final_snapshot.json")).one("vec![0_u8; 1000]");
    let ran = run(command.env("MEMSCOPE_EXPORT_PATH", "other").env("MEMSCOPE_EXPORT_FORMAT", "both"));
    assert_eq!(ran.code, Some(0));
    Export::load(&folder.path().join("other.json"));
    let html = std::fs::read_to_string(folder.path().join("other.html")).unwrap();
    assert!(html.contains("vec![0_u8; 1000]") || html.contains("ends.rs"));
}

#[test]
fn a_bad_setting_is_one_line_and_the_default() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = harness::command("ends");
    command.args(["none", export_path(&folder).to_str().unwrap()]).env("MEMSCOPE_EXPORT_FORMAT", "xml\n");
    let ran = run(command.env("MEMSCOPE_QUIET", "1"));
    assert_eq!(
        ran.stderr,
        "memscope: MEMSCOPE_EXPORT_FORMAT: \"xml\\n\" is not json, html or both: using json\n"
    );
    Export::load(&export_path(&folder));
}

#[test]
fn an_export_that_fails_says_so_and_disturbs_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("missing/export.json");
    let ran = run(harness::command("ends").args(["exit", path.to_str().unwrap()]));
    assert_eq!(ran.code, Some(3));
    assert!(
        ran.stderr.contains("memscope: cannot export to") && ran.stderr.contains("missing"),
        "{}",
        ran.stderr
    );
}

#[test]
fn an_allocator_that_tracks_everything() {
    let folder = tempfile::tempdir().unwrap();
    let path = export_path(&folder);
    let start = Instant::now();
    let ran = run(harness::command("tracking_allocator").arg(&path).env("RUST_BACKTRACE", "1"));
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(start.elapsed() < Duration::from_secs(120));
    let numbers: Vec<u64> = ran.stdout.split_whitespace().map(|number| number.parse().unwrap()).collect();
    let value: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let stats = &value["processes"][0]["stats"];
    let total = stats["total_allocations"].as_u64().unwrap();
    assert_eq!(stats["lost_events"], 0);
    // The variables are tracked too, besides their blocks; the snapshot's own allocations come on top.
    assert!(total >= numbers[0] + 8_000 && total < numbers[0] + 8_000 + 20_000, "{total} {numbers:?}");
    assert!(stats["total_deallocations"].as_u64().unwrap() >= numbers[1] + 8_000);
}

#[test]
fn snapshots_on_the_way() {
    let folder = tempfile::tempdir().unwrap();
    let ran = run(harness::command("lifecycle").current_dir(folder.path()));
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let alive = Export::load(&folder.path().join("lifecycle_snapshot_1_all_alive.json"));
    assert_eq!(alive.process.end, "running");
    assert_eq!(alive.variables.len(), 3, "two owners share one record");
    assert!(alive.variables.iter().all(|v| v.freed_by == "live" && v.end.is_none()));
    assert_eq!(alive.one("index(&text)").scope, "indexing");
    let later = Export::load(&folder.path().join("lifecycle_snapshot_2_after_the_first.json"));
    assert_eq!(later.variables.iter().filter(|v| v.freed_by == "live").count(), 2);
    let end = Export::load(&folder.path().join("lifecycle.json"));
    assert_eq!(end.process.stats.active_allocations, 0);
    assert!(
        end.one("Rc::new(index.words.len())").lifetime_ns
            > later.one("Rc::new(index.words.len())").lifetime_ns
    );
}

#[test]
fn eight_threads_track_at_once() {
    let ran = run(harness::command("many_threads").args(["8", "100000"]));
    assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.starts_with("800000 variables in 8 threads"), "{}", ran.stdout);
    assert!(ran.stdout.contains("800000 ended, 0 live, 0 lost"), "{}", ran.stdout);
}

#[test]
fn stacks_are_as_deep_as_wanted() {
    let frames = |wanted: &str| {
        let folder = tempfile::tempdir().unwrap();
        let path = export_path(&folder);
        let ran = run(harness::command("ends").arg("return").arg(&path).env("MEMSCOPE_STACKS", wanted));
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        let export = Export::load(&path);
        let frames = export.frames("vec![0_u8; 1000]").into_iter().cloned().collect::<Vec<_>>();
        assert!(
            frames[0].function.as_deref().is_some_and(|function| function.starts_with("ends")),
            "{frames:?}"
        );
        (frames.len(), ran.stderr)
    };
    let (none, two, all) = (frames("0").0, frames("2").0, frames("1").0);
    assert!(none == 1 && two >= 2 && all > two, "{none} {two} {all}");
    let (default, stderr) = frames("many");
    assert_eq!(default, 1);
    assert!(stderr.contains("MEMSCOPE_STACKS: \"many\" is not"), "{stderr}");
}
