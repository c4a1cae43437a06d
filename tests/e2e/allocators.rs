//! Programs with another allocator keep it and are recorded; one that is built in and not to be seen is named.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use memscope_tests::recording::{analyze, report};
use memscope_tests::said::Said;
use memscope_tests::snapshot::Process;
use memscope_tests::{Cmd, Record, Snapshot, TempDir, artifacts, program};

/// (the library's file name, a function of it that tells the usable size of its blocks).
const ALLOCATORS: [(&str, &str); 3] = [
    ("libjemalloc.so.2", "malloc_usable_size"),
    ("libmimalloc.so.2", "mi_usable_size"),
    ("libtcmalloc_minimal.so.4", "tc_malloc_size"),
];

fn library(name: &str) -> PathBuf {
    let path = Path::new("/usr/lib/x86_64-linux-gnu").join(name);
    assert!(path.exists(), "{} is needed", path.display());
    path
}

#[track_caller]
fn assert_recorded(process: &Process, what: &str) {
    for size in [10009, 3 * 3343, 10037, 10048, 10061, 10063, 10067, 10069, 10079] {
        assert_eq!(process.one_sized(size).freed_by, "free", "{what}: {size}");
    }
    assert_eq!(process.one_sized(10007).freed_by, "realloc", "{what}");
    assert_eq!(process.sized(40).len(), 15_000, "{what}");
    assert_eq!(process.sized(48).iter().filter(|a| a.freed_by == "free").count(), 15_000, "{what}");
    assert_eq!(process.static_allocators, [], "{what}: it is in front of nothing");
    assert!(
        process.allocations.iter().all(|block| block.size < 1 << 47),
        "{what}: more than there are addresses"
    );
}

#[test]
fn linked_dynamically() {
    for (name, usable) in ALLOCATORS {
        // Named by path: distributions have the plain name in packages for developers only.
        let link = format!("-l:{name}");
        let program = program::cxx("which_allocator", &["-Wl,--no-as-needed", &link, "-ldl"]);
        let words = [program.as_os_str(), usable.as_ref()];
        let native = Said::parse(&Cmd::new(words).run().success().stdout);
        for record in [Record::new(words), Record::new(words).by_hand()] {
            let recorded = record.success();
            assert_eq!(Said::parse(&recorded.ran.stdout).answers, native.answers, "{name}");
            assert_recorded(&recorded.process(), name);
        }
    }
}

#[test]
fn preloaded_too() {
    let program = program::cxx("which_allocator", &["-ldl"]);
    for (name, usable) in ALLOCATORS {
        let words = [program.as_os_str(), usable.as_ref()];
        let native = Said::parse(&Cmd::new(words).env("LD_PRELOAD", library(name)).run().success().stdout);
        let recorded = Record::new(words).env("LD_PRELOAD", library(name)).success();
        assert_eq!(Said::parse(&recorded.ran.stdout).answers, native.answers, "{name}");
        assert_recorded(&recorded.process(), name);
    }
}

/// An operator that fails changes nothing else, and what the program's handler does meanwhile and the C++ library for the
/// exception is recorded. (The third allocator ends the program instead of throwing.)
#[test]
fn an_operator_that_throws() {
    let program = program::cxx("no_memory", &["-std=c++17"]);
    for (name, _) in [ALLOCATORS[0], ALLOCATORS[2]] {
        let recorded = Record::new([&program]).env("LD_PRELOAD", library(name)).success();
        let process = recorded.process();
        for size in [10007, 10009, 10037] {
            assert_eq!(process.one_sized(size).freed_by, "free", "{name}: {size}");
        }
        assert_eq!((process.stats.failed_allocations, process.stats.unknown_frees), (3, 0), "{name}");
        assert_eq!(process.stats.total_deallocations, 6, "{name}: with those of three exceptions");
    }
}

/// By hand the order may be wrong. Where an allocator takes all calls, the recording and one line say so, however the program ends; a
/// library that passes them on is fine.
#[test]
fn preloaded_before_us() {
    let program = program::c("circumstances", &[]);
    let folder = TempDir::new().expect("a folder");
    let recorded = |name: &str, before: &Path, argv: &[&OsStr]| {
        let dir = folder.path().join(name);
        let both = format!("{} {}", before.display(), artifacts::library().display());
        let ran = Cmd::new(argv).env("LD_PRELOAD", both).env("MEMSCOPE_OUTPUT", &dir).run().with_code(7);
        let json = folder.path().join(format!("{name}.json"));
        let _ = analyze(&dir, &json, &["--allocations", "all"]).success();
        (ran.err(), Snapshot::load(&json))
    };
    let direct = [program.as_os_str(), OsStr::new("nothing")];
    let script = format!("{} nothing; kill -9 $$", program.display());
    let shells = ["sh", "-c", "sh -c \"$0\"; exit 7", &script].map(OsStr::new);
    for (name, _) in ALLOCATORS {
        for (what, argv) in [("direct", &direct[..]), ("shells", &shells)] {
            let (said, snapshot) = recorded(&format!("{what}-{name}"), &library(name), argv);
            let lines: Vec<_> = said.lines().filter(|line| line.starts_with("memscope: ")).collect();
            assert!(lines.len() == 1 && lines[0].contains("put libmemscope.so first"), "{said}");
            assert!(lines[0].contains(name), "{said}");
            assert_eq!(snapshot.processes.len(), if what == "direct" { 1 } else { 3 });
            for process in &snapshot.processes {
                let reason = process.incomplete_reason.clone().unwrap_or_default();
                assert!(!process.complete && reason.contains("before libmemscope.so"), "{reason}");
            }
        }
    }
    let passes_on = program::c_library("passes_on", &[]);
    let (said, snapshot) = recorded("passes_on", &passes_on, &direct);
    assert_eq!((said.as_str(), snapshot.complete), ("", true), "{:?}", snapshot.incomplete_reason);
    assert_eq!(snapshot.processes[0].sized(40).len(), 65_000);
}

/// What such an allocator hands out is not in the recording, which JSON, terminal and HTML say.
#[test]
fn built_in() {
    let program = program::c("built_in", &[]);
    let recorded = Record::new([&program]).success();
    let process = recorded.process();
    assert_eq!(process.one_sized(10007).freed_by, "free");
    assert!(process.sized(10009).is_empty());
    let [found] = &process.static_allocators[..] else { panic!("{:?}", process.static_allocators) };
    assert_eq!((found.name.as_str(), found.module.as_str()), ("jemalloc", process.exe.as_str()));
    let text = report(&recorded.dir()).success().out();
    let lines = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(lines.contains("NOTE: jemalloc in built_in") && lines.contains("does not pass malloc"), "{text}");
    let html = recorded.folder.path().join("report.html");
    let _ = analyze(&recorded.dir(), &html, &[]).success();
    let page = std::fs::read_to_string(&html).expect("a page");
    assert!(page.contains("jemalloc in built_in"), "the page's data name it");
    // From a snapshot, too.
    let again = recorded.folder.path().join("again.json");
    let _ = analyze(&recorded.dir().join("snapshot.json"), &again, &[]).success();
    assert_eq!(Snapshot::load(&again).processes[0].static_allocators, process.static_allocators);
}

/// A real one: the sanitizer's allocator, linked statically.
#[test]
fn built_in_by_the_compiler() {
    let flags = ["-fsanitize=address", "-static-libasan", "-Wno-maybe-uninitialized", "-Wno-error"];
    let recorded = Record::new([program::c("circumstances", &flags)]).arg("nothing").by_hand().with_code(7);
    let process = &recorded.snapshot().processes[0];
    assert_eq!(process.static_allocators.len(), 1, "{:?}", process.static_allocators);
    assert_eq!(process.static_allocators[0].name, "AddressSanitizer");
}
