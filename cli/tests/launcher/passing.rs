//! What is passed through: streams, words, environment, directory, status.

use std::fs;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use crate::bench::{Bench, output, text};

#[test]
fn streams_go_straight_through() {
    let bench = Bench::new();
    let mut command = bench.run("sh -c");
    command.arg("cat; echo err >&2").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("starts");
    child.stdin.take().expect("a pipe").write_all(b"through\n").expect("written");
    let result = child.wait_with_output().expect("ends");
    assert_eq!((text(&result.stdout), text(&result.stderr)), ("through\n".into(), "err\n".into()));
    assert_eq!(result.status.code(), Some(0));
}

#[test]
fn closed_streams_are_closed() {
    let bench = Bench::new();
    let list = |words: &str| {
        let result =
            output(Command::new("sh").arg("-c").arg(format!("exec {words} ls /proc/self/fd <&- 2>&-")));
        text(&result.stdout)
    };
    let memscope = format!(
        "env XDG_CACHE_HOME={0}/cache {1} run --quiet --export none -o {0}/rec",
        bench.root().display(),
        env!("CARGO_BIN_EXE_memscope-cli")
    );
    let (native, recorded) = (list(""), list(&memscope));
    assert!(!native.contains('2') || native.contains('0'), "{native}");
    assert_eq!(recorded.lines().next(), native.lines().next(), "{recorded}");
}

#[test]
fn the_status_is_the_programs() {
    let bench = Bench::new();
    for status in [0, 1, 2, 77, 125, 255] {
        let mut command = bench.memscope(&format!("run --quiet --export none -o rec{status} sh -c"));
        assert_eq!(output(command.arg(format!("exit {status}"))).status.code(), Some(status));
    }
}

#[test]
fn a_signal_becomes_a_status() {
    let bench = Bench::new();
    for (signal, status) in [("KILL", 137), ("TERM", 143), ("SEGV", 139), ("INT", 130)] {
        let mut command = bench.memscope(&format!("run --quiet --export none -o {signal} sh -c"));
        let result = output(command.arg(format!("kill -{signal} $$")));
        assert_eq!(result.status.code(), Some(status), "{signal}");
    }
}

#[test]
fn words_arrive_as_they_are() {
    let bench = Bench::new();
    let mut command = bench.run("-- printf [%s]");
    let result = output(command.args(["", "a b", "--quiet", "--", "-o", "*"]));
    assert_eq!(text(&result.stdout), "[][a b][--quiet][--][-o][*]");
}

#[test]
fn the_program_is_called_as_the_user_called_it() {
    let bench = Bench::new();
    let result = output(bench.run("sh -c").arg("echo $0; readlink /proc/$$/exe; pwd"));
    let lines = text(&result.stdout);
    assert_eq!(lines.lines().next(), Some("sh"));
    assert_eq!(lines.lines().nth(2), bench.root().to_str());
}

#[test]
fn a_script_without_a_first_line_is_run_by_the_shell() {
    let bench = Bench::new();
    let script = bench.script("bare", "");
    fs::write(&script, "echo \"$0 $1\"\n").expect("written");
    assert_eq!(text(&output(&mut bench.run("./bare word")).stdout), "./bare word\n");
}

#[test]
fn the_environment_is_kept_and_ours_added() {
    let bench = Bench::new();
    let mut command = bench.run("env");
    command
        .env("ODD", "a=b c")
        .env("LD_PRELOAD", "/lib/x86_64-linux-gnu/libm.so.6")
        .env("MEMSCOPE_AUTO_EXPORT", "1");
    let result = text(&output(&mut command).stdout);
    let value = |name: &str| result.lines().find_map(|line| line.strip_prefix(&format!("{name}=")));
    assert_eq!(value("ODD"), Some("a=b c"));
    assert_eq!(value("RUST_BACKTRACE"), Some("1"));
    assert_eq!(value("MEMSCOPE_AUTO_EXPORT"), None);
    assert_eq!(value("MEMSCOPE_OUTPUT"), bench.path("rec").to_str());
    let preloaded: Vec<&str> = value("LD_PRELOAD").expect("set").split(':').collect();
    assert!(preloaded[0].ends_with("/libmemscope.so"), "{preloaded:?}");
    assert_eq!(preloaded[1..], ["/lib/x86_64-linux-gnu/libm.so.6"]);
}

#[test]
fn memscope_in_memscope_preloads_one_library() {
    let bench = Bench::new();
    let inner = format!("{} run --quiet --export none -o inner env", env!("CARGO_BIN_EXE_memscope-cli"));
    let result = text(&output(&mut bench.run(&inner)).stdout);
    let preloaded = result.lines().find(|line| line.starts_with("LD_PRELOAD=")).expect("set");
    assert_eq!(preloaded.matches("libmemscope.so").count(), 1, "{preloaded}");
    assert!(result.contains("/inner\n"));
}

#[test]
fn the_default_directory_has_the_programs_id() {
    let bench = Bench::new();
    let result = output(bench.memscope("run --quiet --export none sh -c").arg("echo $$"));
    let name = format!("memscope-sh-{}", text(&result.stdout).trim());
    assert!(bench.path(&name).is_dir(), "{name}");
}

#[test]
fn nothing_is_added_to_stdout_and_quiet_is_quiet() {
    let bench = Bench::new();
    let result = output(&mut bench.run("true"));
    assert_eq!((text(&result.stdout), text(&result.stderr)), (String::new(), String::new()));
    let said = output(&mut bench.memscope("run --export none -o loud sh -c 'exit'"));
    assert_eq!(text(&said.stdout), "");
    assert!(text(&said.stderr).ends_with("\n"));
}

#[test]
fn the_process_group_stays() {
    let bench = Bench::new();
    let mut command = bench.run("sh -c");
    // Leads a group of its own, as from an interactive shell.
    command.arg("cut -d' ' -f5 /proc/self/stat").process_group(0).stdout(Stdio::piped());
    let child = command.spawn().expect("starts");
    let group = child.id();
    let result = child.wait_with_output().expect("ends");
    assert_eq!(text(&result.stdout).trim(), group.to_string());
}

#[test]
fn the_preload_path_lasts_and_can_be_used() {
    let bench = Bench::new();
    let result = output(&mut bench.memscope("preload-path"));
    let path = text(&result.stdout).trim().to_owned();
    assert!(path.starts_with('/') && path.ends_with("/libmemscope.so"), "{path}");
    assert!(fs::read(&path).expect("there").starts_with(b"\x7fELF"));
    assert_eq!(text(&output(&mut bench.memscope("preload-path")).stdout).trim(), path);
    let run = output(
        Command::new("true").env("LD_PRELOAD", &path).env("MEMSCOPE_QUIET", "1").current_dir(bench.root()),
    );
    assert_eq!((run.status.code(), text(&run.stderr)), (Some(0), String::new()));
}

#[test]
fn a_cache_that_cannot_be_preloaded_is_passed_over() {
    let bench = Bench::new();
    let mut command = bench.memscope("preload-path");
    let result =
        output(command.env("XDG_CACHE_HOME", bench.path("with space")).env("HOME", bench.path("a:b")));
    let path = text(&result.stdout).trim().to_owned();
    assert!(!path.contains([' ', ':']) && fs::metadata(&path).is_ok(), "{path}");
}

#[test]
fn what_still_runs_is_named() {
    let bench = Bench::new();
    let mut command = bench.memscope("run --export none -o rec sh -c");
    let result = output(command.arg("sleep 20 >&- 2>&- & echo $!"));
    let pid = text(&result.stdout).trim().to_owned();
    let said = text(&result.stderr);
    crate::bench::kill("KILL", pid.parse().expect("a number"));
    assert!(said.contains(&format!("still running: {pid} (")), "{said}");
    assert!(said.contains("memscope-cli analyze rec"), "{said}");
    assert!(said.ends_with("exited with status 0\n"), "{said}");
}
