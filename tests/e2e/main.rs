//! The end-to-end suite: memscope as its users run it.

use std::path::Path;

use memscope_tests::said::{Said, Tally};
use memscope_tests::{Cmd, Record};

// What is recorded
mod allocators; // jemalloc, mimalloc, tcmalloc: linked, preloaded, built in
mod calls; // each hooked function, counts known by construction

mod edges; // failures, zeroes, overflows, foreign blocks, errno
mod lifetimes; // times against the program's own clock
mod soak; // memory over time
mod stacks; // names from the caller to main, inlined calls, signals, dlopen
mod stacks_gdb; // the same stacks as gdb's
mod threads; // blocks handed between threads, many brief threads
mod totals; // the same counts as valgrind, heaptrack and a counting library

// What must not change
mod exported; // the library's symbol table
mod native; // addresses, alignment and usable sizes of a native run
mod sameness; // output and exit status of real programs

// The outside
mod by_hand; // LD_PRELOAD and the variables
mod cli_run; // exit statuses, errors, options of `run`
mod drain; // `run --no-thread`
mod drain_mishaps; // where something goes wrong with it
mod reports; // terminal, JSON and HTML agree; the schema

// Hard ends and circumstances
mod circumstances; // limits, filters, users, descriptors, other tools
mod damage; // cut and damaged traces
mod disks; // full, tiny, not there; recordings that are deleted or moved
mod ends; // every kind of end, what happens after main, forks
mod kill; // SIGKILL at any moment
mod limits; // of the size of files and of their number
mod privacy; // rights, links, the environment
mod stops; // SIGSTOP, SIGTSTP and what may follow
mod thread_ends; // every way in which threads and processes with threads end

// More than one process
mod forks; // every way to fork, whatever the parent is doing
mod namespaces; // pid namespaces, time namespaces
mod trees; // every way to start a program

/// Runs one case of a program natively, recorded, and beside it the recorded baseline; compares them with
/// what the program says that it did.
#[track_caller]
fn check_case(program: &Path, case: &str, baseline: &str) {
    let native = Said::parse(&Cmd::new([program]).arg(case).run().success().stdout);
    let less = Record::new([program]).arg(baseline).success().process();
    let recorded = Record::new([program]).arg(case).success();
    let said = Said::parse(&recorded.ran.stdout);
    assert_eq!(said.answers, native.answers, "answers of the recorded and of the native run");
    assert!(said.others.is_empty(), "{:?}", said.others);
    let process = recorded.process();
    assert_eq!(Tally::difference(&process.stats, &less.stats), said.tally, "recorded and made");
    said.assert_blocks(&process);
}

/// One `#[test]` for each case of a program.
macro_rules! cases {
    ($program:expr, $baseline:literal: $($case:ident)*) => {
        $(#[test]
        fn $case() {
            crate::check_case(&$program, stringify!($case), $baseline);
        })*
    };
}
use cases;
