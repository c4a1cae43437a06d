//! Threads that end in every way, and what ends while they run.

use std::time::Duration;

use memscope_tests::said::Said;
use memscope_tests::snapshot::Process;
use memscope_tests::{Cmd, Record, program};

/// No wait at exit goes on without a deadline; a generous one for a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Recorded through `run` and by hand, with the native run's output (but for addresses) and status.
#[track_caller]
fn recorded(how: &str, status: i32) -> Vec<Process> {
    let program = program::cxx("thread_ends", &[]);
    let native = Said::parse(&Cmd::new([&program]).arg(how).timeout(PATIENCE).run().with_code(status).stdout);
    let record = Record::new([&program]).arg(how).timeout(PATIENCE);
    let check = |record: Record| {
        let recorded = record.with_code(status);
        let said = Said::parse(&recorded.ran.stdout);
        assert_eq!((&said.answers, said.tally), (&native.answers, native.tally), "{how}");
        let process = recorded.process();
        said.assert_blocks(&process);
        for block in &said.blocks {
            let made = said.blocks.iter().filter(|other| other.size == block.size).count();
            assert_eq!(process.sized(block.size).len(), made, "{how}: blocks of {}", block.size);
        }
        assert_eq!(process.stats.unknown_frees, 0, "{how}");
        process
    };
    vec![check(record.clone()), check(record.by_hand())]
}

/// Thread-local objects, four rounds of a key's destructor, cleanup handlers.
#[test]
fn destructors_of_threads() {
    for how in ["return", "pthread_exit", "cancel_deferred", "cancel_asynchronous"] {
        for process in recorded(how, 0) {
            assert_eq!(process.sized(20021).len(), 4 * 8, "{how}");
            assert_eq!(process.sized(20011).len(), 8, "{how}");
            assert_eq!(process.sized(20029).len(), if how.starts_with("cancel") { 8 } else { 0 }, "{how}");
            assert_eq!(process.stats.threads, 9, "{how}");
            assert_eq!(process.sized(20051).len(), 1, "{how}: the static object's");
        }
    }
}

/// Cancelled while they do nothing but allocate.
#[test]
fn cancelled_at_work() {
    for process in recorded("cancel_busy", 0) {
        assert_eq!(process.sized(20029).len(), 8);
    }
}

/// Cancelled at once wherever they are, in the recorder's own work as well: that ends nobody else's.
#[test]
fn cancelled_in_their_first_call() {
    for process in recorded("cancel_newborn", 0) {
        assert_eq!(process.sized(20089).len(), 1);
        assert!((0..40).all(|i| process.sized(200_000 + i).len() == 1));
    }
}

/// Handlers that allocate.
#[test]
fn signal_handlers() {
    for process in recorded("signals", 0) {
        assert_eq!(process.sized(20071).len(), 2_000);
        assert_eq!(process.sized(24).len(), 2_000);
    }
}

/// Each in the middle of the one before's call.
#[test]
fn signal_handlers_in_each_others_calls() {
    let program = program::c("nested_handlers", &["-rdynamic", "-fno-builtin"]);
    let command = [program.as_os_str(), "15".as_ref()];
    let allocator = program::c_library("bump", &[]);
    let native = Cmd::new(command).env("LD_PRELOAD", &allocator).run().success();
    let recorded = Record::new(command).env("LD_PRELOAD", &allocator).success();
    assert_eq!(recorded.ran.out(), native.out());
    let process = recorded.process();
    assert!(process.complete, "{:?}", process.incomplete_reason);
    assert_eq!(process.sized(20101).len().to_string(), native.out().trim());
    assert_eq!((process.sized(20107).len(), process.stats.threads), (1, 1));
    // Beyond that they are counted, and nothing else is missing.
    let command = [program.as_os_str(), "40".as_ref()];
    let recorded = Record::new(command).env("LD_PRELOAD", &allocator).success();
    let process = recorded.snapshot().processes.swap_remove(0);
    let reason = process.incomplete_reason.clone().unwrap_or_default();
    assert!(!process.complete && reason.contains("only counted"), "{reason}");
    assert_eq!(process.sized(20101).len() as u64 + process.stats.lost_events, 40);
    assert_eq!((process.sized(20101).len(), process.sized(20107).len()), (16, 1));
}

#[test]
fn exit_while_others_allocate() {
    for process in recorded("exit_while_others_run", 4) {
        assert_eq!((process.sized(20047).len(), process.sized(20051).len()), (1, 1));
        assert!(process.sized(32).len() > 100);
        // At the most one block of each thread is live.
        assert!(process.sized(32).iter().filter(|a| a.freed_by == "exit").count() <= 3);
    }
}

/// The main thread ends before another one, which ends the process.
#[test]
fn the_main_thread_ends_first() {
    for process in recorded("main_first", 5) {
        assert_eq!((process.sized(20063).len(), process.sized(20051).len()), (1_000, 1));
        assert_eq!((process.end.as_str(), process.exit_code), ("exit", Some(5)));
    }
}

/// The last thread of the program's ends by a plain system call: ours must not keep the process.
#[test]
fn the_last_thread_ends_without_exit() {
    let program = program::cxx("thread_ends", &[]);
    let recorded = Record::new([program]).arg("main_first_raw").timeout(PATIENCE).with_code(6);
    let process = recorded.process();
    assert_eq!(process.sized(24).len(), 20_000);
    assert_eq!((process.end.as_str(), process.exit_code), ("_exit", Some(6)));
}
