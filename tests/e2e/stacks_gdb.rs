//! The same stacks as gdb shows at a breakpoint in the allocation function.

use std::ffi::OsStr;

use memscope_tests::TempDir;
use memscope_tests::{Cmd, Process, Record, program, things};

/// The function names of gdb's backtrace where this many bytes are asked of malloc or calloc, without that function itself.
fn backtrace(command: &Cmd, size: u64) -> Vec<String> {
    let mut argv: Vec<_> = ["gdb", "--batch", "-nx"].map(Into::into).to_vec();
    for line in [
        "set debuginfod enabled off",
        "set breakpoint pending on",
        "set confirm off",
        "set pagination off",
        "set width 0",
        "set backtrace past-main on",
        "set startup-with-shell off",
        "handle SIGUSR1 nostop noprint pass",
        &format!("break malloc if $rdi == {size}"),
        &format!("break calloc if $rdi * $rsi == {size}"),
        "run",
        "backtrace",
    ] {
        argv.extend(["-ex".into(), line.into()]);
    }
    argv.push("--args".into());
    argv.extend(command.argv().iter().cloned());
    let ran = command.with_argv(argv).run();
    let frames: Vec<String> = ran.out().lines().filter_map(frame_name).collect();
    assert!(frames.len() > 1, "no backtrace:\n{}", ran.tail());
    comparable(&frames[1..])
}

/// `#2  0x0000555555555335 in outer (n=3) at stacks.c:9` or `#0  inner (n=3) at stacks.c:7`
fn frame_name(line: &str) -> Option<String> {
    let rest = line.strip_prefix('#')?.trim_start_matches(|c: char| c.is_ascii_digit()).trim_start();
    let rest = rest
        .split_once(" in ")
        .filter(|(address, _)| address.starts_with("0x"))
        .map_or(rest, |(_, rest)| rest);
    Some(rest.split(" (").next()?.split('(').next()?.to_owned())
}

/// The names down to `main`, or to libc's caller of it where `main` ends in a jump. Left out is what the two name
/// differently: a signal's trampoline, and functions that gdb infers although they left by a jump.
fn comparable(names: &[String]) -> Vec<String> {
    let end = names.iter().position(|name| name.starts_with("__libc_start")).unwrap_or(names.len());
    let differs = |name: &&String| {
        ["signal handler", "restore_rt"].iter().any(|part| name.contains(part))
            || ["__GI_qsort", "__pthread_kill_internal", "?"].contains(&name.as_str())
    };
    names[..end].iter().filter(|name| !differs(name)).cloned().collect()
}

/// The recorded names of the block of this size, down to `main`.
#[track_caller]
fn recorded(process: &Process, size: u64) -> Vec<String> {
    comparable(&process.names(process.one_sized(size)))
}

fn compare(argv: &[&OsStr], size: u64) {
    let command = Cmd::new(argv);
    let process = Record::of(command.clone()).success().process();
    let ours = recorded(&process, size);
    let gdbs = backtrace(&command, size);
    assert_eq!(ours, gdbs);
}

#[test]
fn of_the_small_program() {
    let program = program::c("stacks", &["-fomit-frame-pointer"]);
    for (case, size) in
        [("chain", 10007), ("inlined", 10009), ("odd_frames", 10065), ("callback", 10069), ("signal", 10079)]
    {
        compare(&[program.as_os_str(), case.as_ref()], size);
    }
}

/// A real interpreter: 33 bytes of header before a string of bytes.
#[test]
fn of_python() {
    let size = 1_234_567 + 33;
    let folder = TempDir::new().expect("a folder");
    let script = folder.path().join("script.py");
    let text = "class A:\n  def __getitem__(self, i):\n    return bytes(1234567)\n\
                sorted([2, 1], key=lambda x: len(A()[x]) if x == 1 else 0)\n";
    std::fs::write(&script, text).expect("a script");
    let command = Cmd::new([&*things::python(), "-S"])
        .arg(&script)
        .env("PYTHONMALLOC", "malloc")
        .env("PYTHONHASHSEED", "0");
    let process = Record::of(command.clone()).success().process();
    let ours = recorded(&process, size);
    let gdbs = backtrace(&command, size);
    // A function that is split into parts may be called from its cold part, where gdb finds other inlined calls than the
    // line tables say: only functions that are never inlined are compared.
    let inlined: Vec<String> = process.frames.iter().filter(|f| f.inlined).map(|f| f.name()).collect();
    let real = |names: Vec<String>| -> Vec<String> {
        names.into_iter().filter(|name| !inlined.contains(name)).collect()
    };
    let (ours, gdbs) = (real(ours), real(gdbs));
    assert!(ours.len() > 15, "deep enough to mean something: {ours:?}");
    assert_eq!(ours, gdbs);
}
