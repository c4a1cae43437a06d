//! Other tools that count: valgrind's memcheck, a counting library, heaptrack.

use std::path::{Path, PathBuf};

use crate::artifacts::root_dir;
use crate::command::Cmd;
use crate::elf;
use crate::folder::TempDir;
use crate::program::compile;
use serde::Deserialize;

/// Totals as another tool saw them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Successful allocations.
    pub allocations: u64,
    /// Blocks freed.
    pub deallocations: u64,
    /// Bytes asked for.
    pub bytes: u64,
}

/// valgrind's "total heap usage" of a command that starts no other.
///
/// # Panics
/// When valgrind is missing or its log has no such line.
#[must_use]
pub fn valgrind(command: &Cmd) -> Totals {
    let folder = TempDir::new().expect("a fresh folder");
    let log = folder.path().join("log");
    let mut argv = vec!["valgrind".into(), "--run-libc-freeres=no".into(), "--run-cxx-freeres=no".into()];
    argv.push(format!("--log-file={}", log.display()).into());
    argv.extend(command.argv().iter().cloned());
    // `run` sets it too, and an environment is part of what a program may copy.
    let ran = command.with_argv(argv).env("RUST_BACKTRACE", "1").run().success();
    let text =
        std::fs::read_to_string(&log).unwrap_or_else(|e| panic!("no log of valgrind: {e}\n{}", ran.tail()));
    let line = text.lines().find(|line| line.contains("total heap usage")).expect("a line of totals");
    let numbers = crate::text::numbers(line.split_once("usage:").expect("a colon").1);
    let [allocations, deallocations, bytes] = &numbers[..] else { panic!("three numbers in {line:?}") };
    Totals { allocations: parse(allocations), deallocations: parse(deallocations), bytes: parse(bytes) }
}

fn parse(digits: &str) -> u64 {
    digits.parse().expect("a number")
}

/// One process image as the counting library saw it.
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs, reason = "named as in the snapshot")]
pub struct Counted {
    pub pid: u32,
    pub exe: String,
    pub allocs: u64,
    pub frees: u64,
    pub bytes: u64,
}

/// The counting library, compiled.
#[must_use]
pub fn count_library() -> PathBuf {
    let source = root_dir().join("scripts/benchmarks/workloads/src/count.c");
    compile("gcc", &source, &["-O2", "-fPIC", "-shared", "-pthread"])
}

/// Runs a command under the counting library: one entry per process image.
///
/// # Panics
/// When the command fails or the library wrote nothing.
#[must_use]
pub fn counted(command: &Cmd) -> Vec<Counted> {
    let folder = TempDir::new().expect("a fresh folder");
    let out = folder.path().join("counts");
    let ran = command.clone().env("LD_PRELOAD", count_library()).env("COUNT_OUT", &out).run().success();
    let text = std::fs::read_to_string(&out).unwrap_or_else(|e| panic!("no counts: {e}\n{}", ran.tail()));
    text.lines().map(|line| serde_json::from_str(line).expect("a line of counts")).collect()
}

/// Number of allocations that heaptrack saw, without what it brings in itself: its preloaded library needs
/// libstdc++, whose pool is one more allocation in a program that has none of its own.
///
/// # Panics
/// When heaptrack is missing or says nothing.
#[must_use]
pub fn heaptrack(command: &Cmd) -> u64 {
    let folder = TempDir::new().expect("a fresh folder");
    let mut argv = vec!["heaptrack".into(), "-o".into(), folder.path().join("ht").into_os_string()];
    argv.extend(command.argv().iter().cloned());
    let ran = command.with_argv(argv).run().success();
    let text = ran.out() + &ran.err();
    let line =
        text.lines().find(|line| line.trim_start().starts_with("allocations:")).expect("a line of totals");
    let program = Path::new(command.argv().first().expect("a command has words"));
    let own_pool = elf::needed(program).iter().any(|library| library.starts_with("libstdc++"));
    parse(&crate::text::numbers(line)[0]) - u64::from(!own_pool)
}
