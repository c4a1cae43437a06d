//! What cannot be done: one line, and the right status.

use std::fs;
use std::process::Command;

use crate::bench::{Bench, output, text};

/// Fails with this status and one line that says so.
fn assert_error(command: &mut Command, status: i32, says: &str) {
    let result = output(command);
    let stderr = text(&result.stderr);
    assert_eq!(result.status.code(), Some(status), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.starts_with("memscope: ") && stderr.contains(says), "{stderr}");
    assert_eq!(text(&result.stdout), "");
}

#[test]
fn wrong_usage_is_2() {
    let bench = Bench::new();
    assert_error(&mut bench.memscope(""), 2, "no command");
    assert_error(&mut bench.memscope("run"), 2, "no program");
    assert_error(&mut bench.memscope("run --bogus true"), 2, "--bogus");
    assert_error(&mut bench.memscope("analyze a b.txt"), 2, ".html");
    assert_error(&mut bench.memscope("check -- true"), 2, "not available yet");
}

#[test]
fn programs_that_cannot_be_run() {
    let bench = Bench::new();
    assert_error(&mut bench.run("./missing"), 127, "no such program");
    assert_error(&mut bench.run("memscope-no-such-program"), 127, "PATH");
    fs::write(bench.path("plain"), "").expect("written");
    assert_error(&mut bench.run("./plain"), 126, "not executable");
    assert_error(&mut bench.run("/"), 126, "directory");
}

#[test]
fn nothing_is_made_for_a_program_that_is_not_started() {
    let bench = Bench::new();
    output(&mut bench.run("./missing"));
    assert!(!bench.path("rec").exists());
}

#[test]
fn directories_that_cannot_be_used() {
    let bench = Bench::new();
    assert_error(&mut bench.memscope("run -o /proc/x true"), 125, "/proc/x");
    fs::write(bench.path("file"), "").expect("written");
    assert_error(&mut bench.memscope("run -o file true"), 125, "file");
    fs::create_dir(bench.path("old")).expect("made");
    fs::write(bench.path("old/1-0.trace"), "").expect("written");
    assert_error(&mut bench.memscope("run -o old true"), 125, "already holds a recording");
}

#[test]
fn a_static_program_is_not_started() {
    let bench = Bench::new();
    fs::write(bench.path("a.c"), "#include <stdio.h>\nint main(void) { puts(\"ran\"); }\n").expect("written");
    let built =
        Command::new("gcc").args(["-static", "-o", "static", "a.c"]).current_dir(bench.root()).status();
    assert!(built.expect("gcc").success());
    assert_error(&mut bench.run("./static"), 125, "statically linked");
}

#[test]
fn inputs_that_cannot_be_read() {
    let bench = Bench::new();
    assert_error(&mut bench.memscope("analyze missing out.html"), 125, "missing");
    assert_error(&mut bench.memscope("report missing"), 125, "missing");
    fs::write(bench.path("text"), "hello").expect("written");
    assert_error(&mut bench.memscope("report text"), 125, "text");
    assert!(!bench.path("out.html").exists());
}

#[test]
fn help_goes_to_stdout() {
    let bench = Bench::new();
    let help = output(&mut bench.memscope("run --help"));
    assert_eq!(help.status.code(), Some(0));
    assert!(text(&help.stdout).contains("--export"), "{}", text(&help.stdout));
    assert_eq!(text(&help.stderr), "");
}

#[test]
fn a_reader_that_has_gone_is_no_error() {
    let bench = Bench::new();
    let line = format!("{} --help | true; exit $?", env!("CARGO_BIN_EXE_memscope-cli"));
    let result = output(Command::new("sh").arg("-c").arg(line).current_dir(bench.root()));
    assert_eq!(text(&result.stderr), "");
}

#[test]
fn an_export_that_cannot_be_written_is_125() {
    let bench = Bench::new();
    // Nothing can be written into the recording once the program has its trace.
    let script = bench.script("shut", "mkdir rec/snapshot.json");
    let result = output(bench.memscope("run --quiet -o rec").arg(&script));
    assert_eq!(result.status.code(), Some(125), "{}", text(&result.stderr));
    assert!(text(&result.stderr).contains("rec/snapshot.json"), "{}", text(&result.stderr));
    assert_eq!(text(&result.stderr).lines().count(), 1);
    let script = bench.script("shut", "mkdir rec2/snapshot.json; exit 3");
    let result = output(bench.memscope("run --quiet -o rec2").arg(&script));
    assert_eq!(result.status.code(), Some(3), "the program's own failure matters more");
}
