//! Stacks of programs compiled with -O2 and without frame pointers: complete, and with the right names.

use std::path::PathBuf;

use memscope_tests::snapshot::{Allocation, Process};
use memscope_tests::{Record, program};

const FLAGS: [&str; 1] = ["-fomit-frame-pointer"];

fn c_program() -> PathBuf {
    program::c("stacks", &FLAGS)
}

/// Records one chain of the C program.
#[track_caller]
fn chain(case: &str) -> Process {
    Record::new([c_program()]).arg(case).success().process()
}

/// The names of the stack of the one block of this size; it must be whole.
#[track_caller]
fn names(process: &Process, size: u64) -> Vec<String> {
    names_of(process, process.one_sized(size))
}

#[track_caller]
fn names_of(process: &Process, allocation: &Allocation) -> Vec<String> {
    let stack = process.stack(allocation);
    let names = process.names(allocation);
    assert!(!stack.truncated && !stack.guessed, "truncated or guessed: {names:?}");
    names
}

/// The stack begins with these names.
#[track_caller]
fn assert_begins(names: &[String], expected: &[&str]) {
    let got: Vec<&str> = names.iter().take(expected.len()).map(String::as_str).collect();
    assert_eq!(got, expected, "of {names:?}");
}

/// The stack holds `main`, called by libc, called by `_start`, and nothing behind that.
#[track_caller]
fn assert_from_start(names: &[String]) {
    let main = names.iter().position(|name| name == "main" || name.ends_with("::main"));
    assert!(main.is_some(), "no main in {names:?}");
    assert_eq!(names.last().map(String::as_str), Some("_start"), "the outermost of {names:?}");
}

#[test]
fn a_chain_of_calls() {
    let process = chain("chain");
    let names = names(&process, 10007);
    assert_begins(&names, &["inner", "middle", "outer", "main"]);
    assert_from_start(&names);
}

/// No frame of memscope's or of malloc's, whichever function was called.
#[test]
fn frames_begin_at_the_caller_of_each_function() {
    let process = chain("every_function");
    for size in [10007, 10009, 10037, 200_003, 10039, 10061, 10112] {
        assert_begins(&names(&process, size), &["every_function", "main"]);
    }
    assert!(process.frames.iter().all(|f| !f.module.as_deref().unwrap_or("").contains("libmemscope")));
}

#[test]
fn each_call_has_its_own_line() {
    let process = chain("every_function");
    let line = |size| process.frames(process.one_sized(size))[0].line.expect("compiled with -g");
    let first = line(10007);
    assert_eq!([10009, 10037, 200_003, 10039].map(line), [first + 1, first + 2, first + 3, first + 4]);
    let frame = process.frames(process.one_sized(10007))[0];
    assert!(frame.file.as_deref().expect("compiled with -g").ends_with("stacks.c"), "{frame:?}");
    assert_eq!(frame.module.as_deref(), Some(process.exe.as_str()));
}

#[test]
fn inlined_calls_are_frames() {
    let process = chain("inlined");
    let frames = process.frames(process.one_sized(10009));
    let got: Vec<_> = frames.iter().take(4).map(|f| (f.name(), f.inlined)).collect();
    let expected =
        [("inlined_leaf", true), ("inlined_middle", true), ("inlining_host", false), ("main", false)];
    assert_eq!(got, expected.map(|(name, inlined)| (name.to_owned(), inlined)));
    // They are one machine frame: one address.
    assert_eq!(frames[0].address, frames[2].address);
    assert_ne!(frames[2].address, frames[3].address);
}

#[test]
fn a_tail_call_leaves_no_frame() {
    let process = chain("tail_call");
    assert_begins(&names(&process, 10037), &["calls_the_jumper", "main"]);
}

#[test]
fn depth_has_no_limit() {
    let process = chain("recursion");
    let names = names(&process, 10039);
    assert_eq!(names.iter().filter(|name| *name == "recursive").count(), 3001);
    assert_from_start(&names);
}

#[test]
fn huge_alloca_and_over_aligned_frames() {
    let process = chain("odd_frames");
    for (size, frame) in [(10061, "huge_frame"), (10063, "alloca_frame"), (10065, "aligned_frame")] {
        let names = names(&process, size);
        assert_begins(&names, &["inner", frame, "odd_frames", "main"]);
        assert_from_start(&names);
    }
}

#[test]
fn a_callback_out_of_libc() {
    let process = chain("callback");
    let names = names(&process, 10069);
    assert_begins(&names, &["compare"]);
    let sorter = names.iter().position(|name| name == "sorter").expect("the caller of qsort");
    assert!(sorter >= 2, "libc's frames lie between: {names:?}");
    assert_begins(&names[sorter..], &["sorter", "main"]);
    assert_from_start(&names);
}

#[test]
fn through_a_signal_handler() {
    for case in ["signal", "signal_stack"] {
        let process = chain(case);
        let names = names(&process, 10079);
        assert_begins(&names, &["in_handler", "handler"]);
        let interrupted = names.iter().position(|name| name == "interrupted").expect("who was interrupted");
        assert_begins(&names[interrupted..], &["interrupted", "main"]);
        assert_from_start(&names);
    }
}

/// The interrupted frame's address is the very instruction, not the one before it.
#[test]
fn through_the_handler_of_a_fault() {
    let process = chain("fault");
    let names = names(&process, 10091);
    assert_begins(&names, &["in_handler", "skip_fault"]);
    let faulting = names.iter().position(|name| name == "faulting").expect("who faulted");
    assert_begins(&names[faulting..], &["faulting", "main"]);
    assert_from_start(&names);
}

#[test]
fn to_the_start_of_a_thread() {
    let process = chain("thread");
    let allocation = process.one_sized(10093);
    let names = names_of(&process, allocation);
    assert_begins(&names, &["inner", "in_thread", "thread_body"]);
    let outside = &process.frames(allocation)[3..];
    assert!(!outside.is_empty() && outside.len() <= 3, "libc's start of a thread: {names:?}");
    assert!(outside.iter().all(|f| f.module.as_deref().is_some_and(|m| m.contains("libc"))), "{outside:?}");
    assert_eq!(allocation.thread_id, 2);
}

#[test]
fn with_frame_pointers_and_without_optimisation() {
    for flags in [["-O0", "-fomit-frame-pointer"], ["-O2", "-fno-omit-frame-pointer"], ["-O3", "-fno-plt"]] {
        let program = program::c("stacks", &flags);
        let process = Record::new([program]).arg("chain").success().process();
        let names = names(&process, 10007);
        assert_begins(&names, &["inner", "middle", "outer", "main"]);
        assert_from_start(&names);
    }
}

/// A lazily bound program calls malloc through its PLT, the first time through the dynamic linker.
#[test]
fn through_the_plt() {
    let program = program::c("stacks", &["-fomit-frame-pointer", "-fplt", "-Wl,-z,lazy"]);
    let process = Record::new([program]).arg("chain").success().process();
    assert_begins(&names(&process, 10007), &["inner", "middle", "outer", "main"]);
}

#[test]
fn cxx_names() {
    let process = Record::new([program::cxx("stacks", &FLAGS)]).success().process();
    let basket = names(&process, 10007);
    assert_begins(&basket, &["shop::Basket::fill"]);
    assert!(basket[1].contains("shop::sell<shop::Basket>"), "{basket:?}");
    assert_from_start(&basket);
    let lambda = names(&process, 10039);
    assert!(lambda[0].contains("operator()") && lambda[1] == "main", "{lambda:?}");
    // A vector's storage: libstdc++'s inlined templates stand between operator new and the caller.
    let vector = names(&process, 419 * 32);
    assert!(vector.iter().any(|name| name.contains("reserve")), "{vector:?}");
    assert!(vector.iter().any(|name| name == "vectors"), "{vector:?}");
    assert_from_start(&vector);
}

/// The exception itself is a block, the catching frame goes on, and the thrower's block was freed on the way.
#[test]
fn cxx_exceptions_unwind_through_the_hooks() {
    let process = Record::new([program::cxx("stacks", &FLAGS)]).success().process();
    assert_eq!(process.one_sized(10009).freed_by, "free");
    assert_begins(&names(&process, 10037), &["catches", "main"]);
    let thrown = process
        .allocations
        .iter()
        .find(|a| process.names(a).iter().any(|name| name.contains("__cxa_allocate_exception")))
        .expect("the exception's block");
    assert!(process.names(thrown).iter().any(|name| name == "throws"));
    assert_eq!(thrown.freed_by, "free");
}

#[test]
fn rust_names() {
    for mangling in ["legacy", "v0"] {
        let flag = format!("-Csymbol-mangling-version={mangling}");
        // Before v0 became the default, `legacy` needed no flag, and later it needs an unstable one.
        let flags: &[&str] = if mangling == "v0" { &[&flag] } else { &[] };
        let process = Record::new([program::rust("stacks", flags)]).success().process();
        let filled = names(&process, 10007);
        let position = filled.iter().position(|name| name.contains("shop::Basket") && name.ends_with("fill"));
        let fill = position.unwrap_or_else(|| panic!("no fill in {filled:?}"));
        assert!(filled[fill + 1].contains("shop::sell"), "{filled:?}");
        assert!(filled[fill + 1..].iter().any(|name| name == "stacks::main"), "{filled:?}");
        // No hash of the old mangling, nothing mangled of the new.
        assert!(filled.iter().all(|name| !name.starts_with("_R") && !name.starts_with("_ZN")), "{filled:?}");
        let hashed = |name: &String| {
            name.rsplit("::").next().is_some_and(|end| end.len() == 17 && end.starts_with('h'))
        };
        assert!(!filled.iter().any(hashed), "{filled:?}");
        assert_from_start(&filled);
    }
}

/// Two libraries that differ only in a function's name, loaded in turn at the same address.
#[test]
fn an_address_means_the_library_of_its_time() {
    let one = program::c_library("plugin", &["-DNAME=name_of_one"]);
    let two = program::c_library("plugin", &["-DNAME=name_of_two"]);
    let recorded = Record::new([program::c("loads_plugins", &FLAGS)]).arg(&one).arg(&two).success();
    let said = memscope_tests::said::Said::parse(&recorded.ran.stdout);
    let shared = said.others.iter().filter(|line| line["round"]["one"] == line["round"]["two"]).count();
    assert!(shared >= 10, "the two hardly ever were at the same address: {:?}", said.others);
    let process = recorded.process();
    for round in 0..20 {
        for (size, name) in [(20_001 + 4 * round, "name_of_one"), (20_003 + 4 * round, "name_of_two")] {
            assert_begins(&names(&process, size), &[name, "entry", "load_and_call", "main"]);
        }
    }
    for library in [&one, &two] {
        let path = library.to_str().expect("a plain path");
        assert!(process.modules.iter().any(|module| module.path == path), "{path} is no module");
    }
}

/// Handlers of a timer run in sorting, formatting, system calls, the vdso, the PLT, and in the hooks themselves. Counts
/// stay exact and every stack reaches `_start`.
#[test]
fn timer_signals_anywhere() {
    let bump = program::c_library("bump", &[]);
    for case in ["on_program_stack", "on_stack"] {
        let recorded = Record::new([program::c("timer_signals", &FLAGS)])
            .arg(case)
            .env("LD_PRELOAD", &bump)
            .allocations("none")
            .success();
        let said = memscope_tests::said::Said::parse(&recorded.ran.stdout);
        let value = |name: &str| said.others.iter().find_map(|line| line[name].as_u64()).expect("a count");
        let process = recorded.process();
        let by_leaf = |leaf: &str| {
            process
                .stacks
                .iter()
                .filter(|s| s.frames.first().is_some_and(|&f| process.frames[f].name() == leaf))
                .collect::<Vec<_>>()
        };
        let handled = by_leaf("in_handler");
        assert_eq!(
            handled.iter().map(|s| s.stats.allocations).sum::<u64>(),
            value("handled"),
            "{case}: handlers"
        );
        assert_eq!(
            handled.iter().map(|s| s.stats.deallocations).sum::<u64>(),
            value("handled"),
            "{case}: their frees"
        );
        assert_eq!(
            by_leaf("work").iter().map(|s| s.stats.allocations).sum::<u64>(),
            value("rounds") * 200,
            "{case}"
        );
        assert!(handled.len() > 10, "signals came at many places");
        for stack in handled {
            let names: Vec<String> = stack.frames.iter().map(|&f| process.frames[f].name()).collect();
            assert!(!stack.truncated && !stack.guessed, "{case}: {names:?}");
            assert_begins(&names, &["in_handler", "handler"]);
            assert_from_start(&names);
        }
    }
}

/// The lazy binder computes its CFA from rbx, which the functions that it calls save somewhere. And the loader's own first
/// instructions, under every constructor, have no tables.
#[test]
fn every_instruction_of_the_lazy_binder() {
    let recorded = Record::new([program::c("single_step", &["-fomit-frame-pointer", "-Wl,-z,lazy"])])
        .env("LD_PRELOAD", program::c_library("bump", &[]))
        .success();
    let said = memscope_tests::said::Said::parse(&recorded.ran.stdout);
    let handled = said.others[0]["handled"].as_u64().expect("a count");
    let process = recorded.process();
    let mut bound = 0;
    let blocks = process.sized(10009);
    assert_eq!(blocks.len() as u64, handled);
    for block in blocks {
        let names = names_of(&process, block);
        assert_begins(&names, &["in_handler", "handler"]);
        assert!(names.iter().any(|name| name == "first_calls"), "{names:?}");
        assert_from_start(&names);
        bound += u64::from(names.iter().any(|name| name.contains("_dl_runtime_resolve")));
    }
    assert!(bound > 2000, "only {bound} of {handled} in the lazy binder");
    let names = names(&process, 10037);
    assert_begins(&names, &["before_main"]);
    assert!(names.iter().all(|name| name != "main"), "{names:?}");
}

/// rbp of code without tables leads out of the stack, to memory that the program then unmaps: what it led to is a guess, and is
/// not looked at again.
#[test]
fn what_a_wrong_frame_pointer_has_led_to_may_go() {
    let recorded = Record::new([program::c("wrong_frame_pointers", &FLAGS)]).success();
    assert_eq!(recorded.ran.stdout, b"done\n");
    let process = recorded.process();
    for (size, frames, guessed) in [(10007, 2, true), (10009, 1, false), (10037, 1, false)] {
        let blocks = process.sized(size);
        assert_eq!(blocks.len(), 12, "of {size} bytes, in three threads");
        for block in blocks {
            let (names, stack) = (process.names(block), process.stack(block));
            assert_eq!(
                (names.len(), stack.guessed, stack.truncated),
                (frames, guessed, !guessed),
                "{names:?}"
            );
            assert_begins(&names, &["allocate_with"]);
        }
    }
}

/// The stack of a coroutine is whole where its function was entered, whatever lies above it.
#[test]
fn coroutines_end_with_their_own_stack() {
    // With frame pointers there is one of another stack to be followed.
    for flags in [&FLAGS[..], &["-fno-omit-frame-pointer"]] {
        let recorded = Record::new([program::c("coroutines", flags)]).success();
        assert_eq!(recorded.ran.stdout, b"done\n");
        let process = recorded.process();
        for (size, entry, frames) in
            [(10007, "inner_entry", 3), (10009, "outer_entry", 105), (10037, "outer_entry", 3)]
        {
            let names = names(&process, size);
            assert_eq!(names.len(), frames, "{names:?}");
            assert_begins(&names, &["allocate"]);
            assert_eq!(names[frames - 2], entry, "{names:?}");
        }
    }
}
