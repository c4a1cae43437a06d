//! The same totals as other tools count, to the last block.

use memscope_tests::TempDir;
use memscope_tests::oracle::{self, Totals};
use memscope_tests::{Cmd, Record, Snapshot, artifacts, program, things};

fn recorded(record: &Record) -> Snapshot {
    let snapshot = record.clone().allocations("none").success().snapshot();
    assert!(snapshot.complete, "{:?}", snapshot.incomplete_reason);
    snapshot
}

fn totals(snapshot: &Snapshot) -> Totals {
    let (allocations, deallocations, bytes) = snapshot.totals();
    Totals { allocations, deallocations, bytes }
}

/// Variables in the environment of a program that is started by this command in place of `env`.
fn variables(ran: &memscope_tests::Ran) -> usize {
    ran.out().lines().count()
}

/// Programs copy their environment (glibc does, for `setenv`), so both runs get as many variables.
fn padded(command: &Cmd) -> (Cmd, Cmd) {
    let env = command.with_argv(vec!["env".into()]);
    let valgrinds = variables(
        &env.with_argv(vec!["valgrind".into(), "-q".into(), "env".into()]).env("RUST_BACKTRACE", "1").run(),
    );
    let ours = variables(&Record::of(env).allocations("none").success().ran);
    let pad = |mut command: Cmd, n: usize| {
        for i in 0..n {
            command = command.env(format!("PADDING_{i}"), "x");
        }
        command
    };
    (
        pad(command.clone(), valgrinds.saturating_sub(ours)),
        pad(command.clone(), ours.saturating_sub(valgrinds)),
    )
}

#[track_caller]
fn equal_to_valgrind(command: &Cmd, at_least: u64) {
    let (ours, valgrinds) = padded(command);
    let expected = oracle::valgrind(&valgrinds);
    let process = Record::of(ours).allocations("none").success().process();
    let stats = process.stats;
    let got = Totals {
        allocations: stats.total_allocations,
        deallocations: stats.total_deallocations,
        bytes: stats.total_allocated,
    };
    assert_eq!(got, expected, "memscope's and valgrind's");
    assert!(got.allocations >= at_least, "only {} allocations", got.allocations);
    assert_eq!((stats.unknown_frees, stats.lost_events), (0, 0));
}

#[test]
fn of_ls() {
    equal_to_valgrind(&Cmd::new(["ls", "-lR", "/usr/include"]), 5_000);
}

#[test]
fn of_sqlite3() {
    equal_to_valgrind(&Cmd::new(["sqlite3", ":memory:"]).stdin(things::sqlite_script()), 20_000);
}

#[test]
fn of_git_log() {
    let folder = TempDir::new().expect("a folder");
    things::git_repository(folder.path(), 30);
    for words in [&["log"][..], &["log", "-p"]] {
        equal_to_valgrind(
            &Cmd::new(["git"]).args(words).dir(folder.path()).env("GIT_CONFIG_GLOBAL", "/dev/null"),
            500,
        );
    }
}

#[test]
fn of_a_cxx_program() {
    equal_to_valgrind(&Cmd::new([things::workload("deep.cpp")]).arg("20000"), 20_000);
    equal_to_valgrind(&Cmd::new([program::cxx("stacks", &[])]), 5);
}

/// Under the counting library in a run of its own.
#[track_caller]
fn equal_to_counts(command: &Cmd) -> Snapshot {
    let counted = oracle::counted(command);
    let snapshot = recorded(&Record::of(command.clone()));
    assert_eq!(snapshot.processes.len(), counted.len(), "process images: {counted:#?}");
    let sum = |value: fn(&oracle::Counted) -> u64| counted.iter().map(value).sum::<u64>();
    let expected =
        Totals { allocations: sum(|c| c.allocs), deallocations: sum(|c| c.frees), bytes: sum(|c| c.bytes) };
    let mut got = totals(&snapshot);
    // libc makes room in each thread's table of thread-local storage for the recorder's own: 16 bytes.
    got.bytes -= snapshot.processes.iter().map(|process| 16 * (process.stats.threads - 1)).sum::<u64>();
    assert_eq!(got, expected, "memscope's and the counting library's: {counted:#?}");
    snapshot
}

#[test]
fn of_a_threaded_program() {
    let command = Cmd::new([things::workload("mt.c")]).arg("1000000");
    let snapshot = equal_to_counts(&command);
    assert_eq!(snapshot.totals().0, oracle::heaptrack(&command), "memscope's and heaptrack's");
    let _ = equal_to_counts(&Cmd::new([program::c("handover", &[])]).arg("500000"));
}

#[test]
fn of_the_benchmarks_programs() {
    for (name, n) in [("churn.c", "1000000"), ("deep.cpp", "300000")] {
        let command = Cmd::new([things::workload(name)]).arg(n);
        let snapshot = equal_to_counts(&command);
        assert_eq!(snapshot.totals().0, oracle::heaptrack(&command), "memscope's and heaptrack's for {name}");
    }
}

/// The counting library loaded behind memscope in the same process: it sees every call that memscope passes on, so
/// the counts agree for programs that never do the same twice.
#[track_caller]
fn equal_in_one_process(command: &Cmd, at_least: u64) {
    let folder = TempDir::new().expect("a folder");
    let out = folder.path().join("counts");
    let record =
        Record::of(command.clone().env("LD_PRELOAD", oracle::count_library()).env("COUNT_OUT", &out));
    let snapshot = recorded(&record);
    let text = std::fs::read_to_string(&out).expect("counts");
    let counted: Vec<oracle::Counted> =
        text.lines().map(|line| serde_json::from_str(line).expect("a line of counts")).collect();
    let mut pids: Vec<u32> = counted.iter().map(|c| c.pid).collect();
    pids.dedup();
    for process in &snapshot.processes {
        let own: Vec<_> = counted.iter().filter(|c| c.pid == process.pid && c.exe == process.exe).collect();
        assert_eq!(own.len(), 1, "{} of {pids:?}", process.exe);
        let expected =
            Totals { allocations: own[0].allocs, deallocations: own[0].frees, bytes: own[0].bytes };
        let stats = process.stats;
        // What was allocated before memscope or by a parent is a free to the counting library.
        let frees = stats.total_deallocations + stats.unknown_frees + stats.inherited_frees;
        let got = Totals {
            allocations: stats.total_allocations,
            deallocations: frees,
            bytes: stats.total_allocated,
        };
        assert_eq!(got, expected, "{}: memscope's and the counting library's", process.exe);
        assert_eq!(stats.unknown_frees, 0, "{}", process.exe);
    }
    assert!(snapshot.totals().0 >= at_least, "only {} allocations", snapshot.totals().0);
}

#[test]
fn of_python_in_one_process() {
    let script = artifacts::root_dir().join("scripts/benchmarks/workloads/src/pychurn.py");
    let command =
        Cmd::new(["/usr/bin/python3".as_ref(), script.as_os_str()]).arg("1").env("PYTHONMALLOC", "malloc");
    equal_in_one_process(&command, 100_000);
}

#[test]
fn of_perl_in_one_process() {
    equal_in_one_process(&Cmd::new(["perl", "-e", things::PERL]), 20_000);
}

#[test]
fn of_node_in_one_process() {
    let script =
        "const m = new Map(); for (let i = 0; i < 2e4; i++) m.set('k' + i, [i]); console.log(m.size)";
    equal_in_one_process(&Cmd::new(["node", "-e", script]), 5_000);
}

#[test]
fn of_a_compiler_in_one_process() {
    let folder = TempDir::new().expect("a folder");
    let source = folder.path().join("big.cpp");
    things::cxx_source(&source, 1);
    let preprocessed = folder.path().join("big.ii");
    let _ = Cmd::new(["g++", "-std=c++17", "-E", "-o"]).arg(&preprocessed).arg(&source).run().success();
    let cc1plus = Cmd::new(["g++", "-print-prog-name=cc1plus"]).run().success().out();
    let out = folder.path().join("big.s");
    let command =
        Cmd::new([cc1plus.trim(), "-quiet", "-O2", "-std=c++17"]).arg(&preprocessed).arg("-o").arg(&out);
    equal_in_one_process(&command, 100_000);
}

/// The oracles agree with each other, so that a wrong one is noticed without memscope.
#[test]
fn the_oracles_agree() {
    let command = Cmd::new([things::workload("deep.cpp")]).arg("20000");
    let valgrind = oracle::valgrind(&command);
    let counted = oracle::counted(&command);
    assert_eq!(counted.len(), 1);
    let count =
        Totals { allocations: counted[0].allocs, deallocations: counted[0].frees, bytes: counted[0].bytes };
    assert_eq!(count, valgrind);
    assert_eq!(oracle::heaptrack(&command), valgrind.allocations);
    let threaded = Cmd::new([things::workload("mt.c")]).arg("20000");
    assert_eq!(oracle::heaptrack(&threaded), oracle::counted(&threaded)[0].allocs);
}
