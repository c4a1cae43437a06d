//! The program's heap stays byte for byte its own.

use memscope_tests::said::Said;
use memscope_tests::{Cmd, Record, program};

/// Offsets within the heap, usable sizes, reuse and the allocator's own statistics are those of a native run.
#[test]
fn the_heap_is_laid_out_as_natively() {
    let program = program::c("layout", &[]);
    let native = Said::parse(&Cmd::new([&program]).run().success().stdout);
    assert!(native.answers.len() > 150);
    for record in [
        Record::new([&program]),
        Record::new([&program]).by_hand(),
        Record::new([&program]).option("--no-thread"),
    ] {
        let recorded = Said::parse(&record.success().ran.stdout);
        for (name, answer) in &native.answers {
            assert_eq!(recorded.answers.get(name), Some(answer), "{name}");
        }
    }
}

/// The first block ever: libstdc++'s pool of 72,704 bytes, taken before any constructor of ours could run.
#[test]
fn recording_starts_with_the_first_call() {
    let process = Record::new([program::cxx("stacks", &[])]).success().process();
    let pool = process.one_sized(72_704);
    assert_eq!(pool.timestamp_alloc, process.allocations[0].timestamp_alloc, "it is the first");
    assert_eq!(pool.freed_by, "exit");
    let names = process.names(pool);
    assert!(process.frames(pool)[0].module.as_deref().is_some_and(|m| m.contains("libstdc++")), "{names:?}");
}
