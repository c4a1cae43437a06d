//! Real programs print the same and end the same as without memscope.

use std::fs;
use std::path::Path;
use std::time::Duration;

use memscope_tests::TempDir;
use memscope_tests::text::without_times;
use memscope_tests::{Cmd, Ran, Record, Snapshot, things};

/// Runs a command natively and recorded; `prepare` makes its surroundings before each.
#[track_caller]
fn compare(command: &Cmd, mut prepare: impl FnMut(), at_least: u64) -> Snapshot {
    prepare();
    let native = command.run();
    prepare();
    let recorded = Record::of(command.clone()).allocations("none").timeout(Duration::from_secs(500)).run();
    same(&native, &recorded.ran);
    let snapshot = recorded.snapshot();
    assert!(snapshot.complete, "{:?}", snapshot.incomplete_reason);
    assert!(snapshot.totals().0 >= at_least, "only {} allocations", snapshot.totals().0);
    snapshot
}

#[track_caller]
fn same(native: &Ran, recorded: &Ran) {
    assert_eq!(recorded.code(), native.code(), "exit status\n{}", recorded.tail());
    assert_eq!(without_times(&recorded.err()), without_times(&native.err()), "standard error");
    if recorded.stdout != native.stdout {
        assert_eq!(without_times(&recorded.out()), without_times(&native.out()), "standard output");
    }
}

/// Its own test modules, with a random seed that is given.
#[test]
fn pythons_own_tests() {
    let command =
        Cmd::new([&*things::python(), "-m", "test", "--randseed", "7", "test_json", "test_dict", "test_re"])
            .timeout(Duration::from_secs(400));
    let snapshot = compare(&command, || {}, 10_000);
    assert_eq!(snapshot.processes[0].exit_code, Some(0), "they pass");
}

#[test]
fn python_with_every_block_from_malloc() {
    let command = Cmd::new([
        "/usr/bin/python3",
        "-c",
        "import json, re, decimal; print(json.dumps({str(i): i / 7 for i in range(9000)}))",
    ])
    .env("PYTHONMALLOC", "malloc");
    compare(&command, || {}, 50_000);
}

#[test]
fn git_log() {
    let folder = TempDir::new().expect("a folder");
    things::git_repository(folder.path(), 60);
    let git = |words: &[&str]| {
        Cmd::new(["git"]).args(words).dir(folder.path()).env("GIT_CONFIG_GLOBAL", "/dev/null")
    };
    compare(&git(&["log", "-p"]), || {}, 1_000);
    compare(&git(&["gc", "-q"]), || {}, 1_000);
    compare(&git(&["fsck", "--no-progress"]), || {}, 1_000);
}

/// g++ starts cc1plus and as.
#[test]
fn a_compiler() {
    let folder = TempDir::new().expect("a folder");
    let source = folder.path().join("big.cpp");
    things::cxx_source(&source, 1);
    let object = folder.path().join("big.o");
    let command = Cmd::new(["g++", "-O2", "-std=c++17", "-c", "-o"]).arg(&object).arg(&source);
    let mut made = Vec::new();
    let snapshot = compare(
        &command,
        || {
            made.push(fs::read(&object).unwrap_or_default());
            let _ = fs::remove_file(&object);
        },
        100_000,
    );
    assert!(
        made[1] == fs::read(&object).expect("an object") && !made[1].is_empty(),
        "the object files differ"
    );
    let names: Vec<&str> = snapshot.processes.iter().filter_map(|p| p.exe.rsplit('/').next()).collect();
    assert!(names[0].contains("g++") && names.iter().any(|n| n.contains("cc1plus")), "{names:?}");
}

#[test]
fn sqlite3() {
    let folder = TempDir::new().expect("a folder");
    let base = folder.path().join("base");
    let command = Cmd::new(["sqlite3".as_ref(), base.as_os_str()]).stdin(things::sqlite_script());
    compare(&command, || drop(fs::remove_file(&base)), 20_000);
    // An error: something on standard error, and a status of its own.
    let wrong = Cmd::new(["sqlite3", ":memory:"]).stdin("select * from nowhere;\nselect 1;\n.exit 7\n");
    compare(&wrong, || {}, 100);
}

#[test]
fn perl() {
    compare(&Cmd::new(["perl", "-e", things::PERL]).env("PERL_HASH_SEED", "0"), || {}, 20_000);
    compare(&Cmd::new(["perl", "-e", "print STDERR qq(dying\\n); kill 15, $$; sleep 9"]), || {}, 100);
}

#[test]
fn node() {
    let script = "const m = {}; for (let i = 0; i < 1e5; i++) m['k' + i] = [i, String(i)]; console.log(Object.keys(m).length);\
                  console.error('to stderr'); process.exitCode = 3";
    compare(&Cmd::new(["node", "-e", script]), || {}, 1_000);
}

#[test]
fn java() {
    let folder = TempDir::new().expect("a folder");
    let source = folder.path().join("Hello.java");
    let code = "public class Hello { public static void main(String[] a) { var s = new StringBuilder();\n\
                for (int i = 0; i < 1000; i++) s.append(i); System.out.println(s.length()); System.exit(4); } }";
    fs::write(&source, code).expect("a source");
    compare(&Cmd::new(["javac", "-d"]).arg(folder.path()).arg(&source), || {}, 1_000);
    compare(&Cmd::new(["java", "-cp"]).arg(folder.path()).arg("Hello"), || {}, 1_000);
}

/// cargo, rustc (with its own jemalloc in some builds), the linker: a tree of processes with threads.
#[test]
fn cargo_build() {
    let folder = TempDir::new().expect("a folder");
    let small = folder.path().join("small");
    things::small_crate(&small);
    let target = small.join("target");
    let command = Cmd::new(["cargo", "build", "--offline"]).dir(&small).env("CARGO_INCREMENTAL", "0");
    let snapshot = compare(&command, || drop(fs::remove_dir_all(&target)), 10_000);
    assert!(snapshot.processes.iter().any(|p| p.exe.ends_with("rustc")), "rustc is recorded too");
    works(&target.join("debug/small"));
}

#[track_caller]
fn works(program: &Path) {
    assert_eq!(Cmd::new([program]).run().success().out(), "0 1 2 3 4 5 6 7 8\n");
}

/// A pipeline of a shell: standard input goes through, and so does what is not UTF-8.
#[test]
fn a_shell_pipeline() {
    let input: Vec<u8> = (0..200_000_u32)
        .flat_map(|i| [b'a' + (i % 26) as u8, if i % 50 == 0 { b'\n' } else { 0xff }])
        .collect();
    let command =
        Cmd::new(["sh", "-c", "sort -r | uniq -c | tail -n 40; exit 5"]).stdin(input).env("LC_ALL", "C");
    let snapshot = compare(&command, || {}, 50);
    assert!(snapshot.processes.len() >= 4, "sh, sort, uniq and tail");
}
