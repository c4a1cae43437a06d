//! The corners of the malloc family.

use memscope_tests::program;

crate::cases! { program::c("edges", &[]), "nothing":
    malloc_zero malloc_zero_kept calloc_zero realloc_to_zero realloc_null_to_zero reallocarray_to_zero
    free_null posix_memalign_zero
    malloc_fails malloc_fails_again calloc_overflow realloc_fails realloc_null_fails reallocarray_overflow
    memalign_fails valloc_fails pvalloc_fails posix_memalign_fails posix_memalign_bad_alignment
    memalign_odd memalign_zero aligned_alloc_any_size memalign_huge_alignment
    five_gibibytes mapped_blocks
    free_of_unknown realloc_of_unknown realloc_of_unknown_fails realloc_of_unknown_to_zero
    errno_kept
}

/// 800,000 events: buffers go to the writer on the way, and `errno` survives that.
#[test]
fn errno_kept_over_buffers() {
    use memscope_tests::Record;
    use memscope_tests::said::{Said, Tally};

    let program = program::c("edges", &[]);
    let run = |case| Record::new([&program]).arg(case).allocations("none").success();
    let recorded = run("errno_kept_over_buffers");
    let said = Said::parse(&recorded.ran.stdout);
    let less = run("nothing").process();
    assert_eq!(Tally::difference(&recorded.process().stats, &less.stats), said.tally);
}

/// An allocator whose `posix_memalign` and `aligned_alloc` call its own public `memalign`: counted once.
#[test]
fn an_allocator_that_calls_itself() {
    use memscope_tests::said::{Said, Tally};
    use memscope_tests::{Record, oracle};

    let program = program::c("calls", &[]);
    let run = |case| Record::new([&program]).arg(case).env("LD_PRELOAD", oracle::count_library()).success();
    let less = run("nothing").process();
    for case in ["posix_memalign", "aligned_alloc", "memalign", "malloc"] {
        let recorded = run(case);
        let said = Said::parse(&recorded.ran.stdout);
        let process = recorded.process();
        assert_eq!(Tally::difference(&process.stats, &less.stats), said.tally, "{case}");
        said.assert_blocks(&process);
    }
}

/// The end of a block is stamped before the real call: after it the address may already be another thread's.
#[test]
fn a_block_that_is_handed_on_inside_the_call() {
    use memscope_tests::Record;
    use memscope_tests::said::Said;

    let allocator = program::c_library("handing", &[]);
    for how in ["free", "realloc"] {
        let recorded =
            Record::new([program::c("takes_over", &[])]).arg(how).env("LD_PRELOAD", &allocator).success();
        let said = Said::parse(&recorded.ran.stdout);
        assert_eq!(said.others[0]["handed"], 1, "{how}");
        let process = recorded.process();
        assert_eq!(process.stats.unknown_frees, 0, "{how}");
        let [first, second] = process.sized(20011)[..] else { panic!("{how}: not two blocks") };
        assert_eq!((first.ptr, &*first.freed_by, &*second.freed_by), (second.ptr, how, "exit"), "{how}");
        assert!(first.timestamp_dealloc <= Some(second.timestamp_alloc), "{how}: {first:?}\n{second:?}");
    }
}

/// Calls that were left by longjmp, in any place of the stack, don't hide the next ones.
#[test]
fn calls_that_were_jumped_out_of() {
    use memscope_tests::Record;

    for flags in [["-O2", "-rdynamic"], ["-O0", "-rdynamic"]] {
        let allocator = program::c_library("bump", &[]);
        let recorded = Record::new([program::c("jumps_out", &flags)]).env("LD_PRELOAD", &allocator).success();
        assert_eq!(recorded.ran.stdout, b"done\n");
        let process = recorded.process();
        for round in 0..72 {
            assert_eq!(process.one_sized(2000 + round).freed_by, "free", "{flags:?}");
        }
        assert_eq!((process.stats.unknown_frees, process.stats.lost_events), (0, 0));
    }
}
