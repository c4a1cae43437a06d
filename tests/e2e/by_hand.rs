//! `LD_PRELOAD` by hand, and the variables that steer it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use memscope_tests::TempDir;
use memscope_tests::recording::{analyze, traces_in};
use memscope_tests::{Cmd, Record, Snapshot, artifacts, program};

/// A program with the library preloaded, its recording going to `folder/rec`.
fn preloaded(folder: &Path) -> Cmd {
    Cmd::new([program::c("stacks", &[])])
        .dir(folder)
        .env("LD_PRELOAD", artifacts::library())
        .env("MEMSCOPE_CLI", artifacts::cli())
        .env("MEMSCOPE_OUTPUT", folder.join("rec"))
}

fn folder() -> TempDir {
    TempDir::new().expect("a folder")
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Without an export: a recording, and at the most one line, which says what to run.
#[test]
fn a_recording_alone() {
    let folder = folder();
    let ran = preloaded(folder.path()).run().success();
    assert_eq!(names(folder.path()), ["rec"]);
    let traces = traces_in(&folder.path().join("rec"));
    assert_eq!(traces.len(), 1, "{traces:?}");
    let name = traces[0].file_name().expect("a name").to_string_lossy().into_owned();
    assert!(name.starts_with(&format!("{}-", ran.pid)), "PID-N.trace: {name}");
    assert!(ran.err().lines().count() <= 1, "{}", ran.err());
    assert!(ran.err().lines().all(|line| line.contains("memscope-cli analyze")), "{}", ran.err());
    let json = folder.path().join("out.json");
    let _ = analyze(&folder.path().join("rec"), &json, &[]).success();
    let snapshot = Snapshot::load(&json);
    assert!(snapshot.complete, "{:?}", snapshot.incomplete_reason);
    assert_eq!(snapshot.processes[0].one_sized(10007).freed_by, "exit");
    // The trace file itself is an input too.
    let again = folder.path().join("again.json");
    let _ = analyze(&traces[0], &again, &[]).success();
    assert_eq!(Snapshot::load(&again).totals(), snapshot.totals());
}

/// Where nobody reads standard error, or nobody goes on reading it, there is nothing to say, and the end is the program's own.
#[test]
fn a_raw_exit_with_nobody_at_stderr() {
    let gone = "pipe(R, W); close R; POSIX::dup2(fileno(W), 2); POSIX::_exit(3)";
    let socket =
        "socketpair(R, W, AF_UNIX, SOCK_STREAM, 0); close R; POSIX::dup2(fileno(W), 2); POSIX::_exit(3)";
    let full = "pipe(R, W); W->blocking(0); 1 while syswrite(W, '.' x 4096); W->blocking(1); \
        POSIX::dup2(fileno(W), 2); POSIX::_exit(3)";
    for script in [gone, socket, full] {
        let argv = ["perl", "-MPOSIX", "-MSocket", "-MIO::Handle", "-e", script];
        let folder = TempDir::new().expect("a fresh folder");
        let by_hand = Cmd::new(argv)
            .env("LD_PRELOAD", artifacts::library())
            .env("MEMSCOPE_OUTPUT", folder.path().join("rec"))
            .env("MEMSCOPE_AUTO_EXPORT", "1")
            .timeout(Duration::from_secs(60));
        assert_eq!(by_hand.run().code(), 3, "by hand: {script}");
        assert_eq!(Record::new(argv).run().ran.code(), 3, "under run: {script}");
    }
}

/// After `_exit` there is no export, and one line says what to run; the path is quoted for the shell.
#[test]
fn no_export_after_a_raw_exit() {
    let folder = folder();
    let rec = folder.path().join("two words");
    let ran = preloaded(folder.path())
        .with_argv(vec!["perl".into(), "-MPOSIX".into(), "-e".into(), "POSIX::_exit(3)".into()])
        .env("MEMSCOPE_OUTPUT", &rec)
        .env("MEMSCOPE_AUTO_EXPORT", "1")
        .run()
        .with_code(3);
    let said = format!(
        "memscope: no export after _exit: run `memscope-cli analyze '{}' report.html`\n",
        rec.display()
    );
    assert_eq!(ran.err(), said);
    let json = folder.path().join("out.json");
    let _ = analyze(&rec, &json, &[]).success();
    let process = &Snapshot::load(&json).processes[0];
    assert_eq!((process.end.as_str(), process.exit_code), ("_exit", Some(3)));
}

/// The export's folders are made.
#[test]
fn the_exports_folders_are_made() {
    let folder = folder();
    let ran = preloaded(folder.path())
        .env("MEMSCOPE_AUTO_EXPORT", "1")
        .env("MEMSCOPE_EXPORT_PATH", "sub/below/it.json")
        .run()
        .success();
    assert!(Snapshot::load(&folder.path().join("sub/below/it.json")).complete, "{}", ran.err());
}

#[test]
fn quiet_says_nothing() {
    let folder = folder();
    let ran = preloaded(folder.path()).env("MEMSCOPE_QUIET", "1").run().success();
    assert_eq!(ran.err(), "");
    assert_eq!(traces_in(&folder.path().join("rec")).len(), 1);
}

#[test]
fn automatic_exports() {
    for (format, expected) in
        [("json", &["x.json"][..]), ("html", &["x.html"]), ("both", &["x.html", "x.json"])]
    {
        let folder = folder();
        let ran = preloaded(folder.path())
            .env("MEMSCOPE_AUTO_EXPORT", "1")
            .env("MEMSCOPE_EXPORT_FORMAT", format)
            .env("MEMSCOPE_EXPORT_PATH", "x")
            .run()
            .success();
        let mut files = names(folder.path());
        files.retain(|name| name != "rec");
        assert_eq!(files, expected, "{format}\n{}", ran.tail());
        if format != "html" {
            let process = &Snapshot::load(&folder.path().join("x.json")).processes[0];
            assert_eq!(process.end, "exit");
            assert_eq!(process.exit_code, Some(0));
            assert_eq!(process.names(process.one_sized(10007))[..2], ["inner", "middle"]);
        }
    }
}

/// Nothing of the export is the program's child: no signal, nothing to wait for; and it is made where such signals are ignored.
#[test]
fn an_export_is_no_child_of_the_programs() {
    for ignored in [None, Some("ignored")] {
        let folder = folder();
        let argv = [program::c("hears_children", &[]).into_os_string()];
        let ran = preloaded(folder.path())
            .with_argv(argv.into_iter().chain(ignored.map(Into::into)).collect())
            .env("MEMSCOPE_AUTO_EXPORT", "1")
            .env("MEMSCOPE_EXPORT_PATH", "x")
            .run()
            .success();
        assert_eq!(ran.out(), "", "{ignored:?}");
        let said = format!("memscope: exported to {}\n", folder.path().join("x.json").display());
        assert_eq!(ran.err(), said, "{ignored:?}");
        assert!(Snapshot::load(&folder.path().join("x.json")).complete, "{ignored:?}");
    }
}

/// The defaults: the name of the export, its format, and of the recording.
#[test]
fn default_names() {
    let folder = folder();
    let ran = preloaded(folder.path())
        .without_env("MEMSCOPE_OUTPUT")
        .env("MEMSCOPE_AUTO_EXPORT", "1")
        .env("MEMSCOPE_QUIET", "1")
        .run()
        .success();
    let files = names(folder.path());
    let program = program::c("stacks", &[]).file_name().expect("a name").to_string_lossy().into_owned();
    let recordings: Vec<_> = files.iter().filter(|name| name.starts_with("memscope-")).collect();
    assert_eq!(files.len(), 2, "{files:?}");
    assert!(files.contains(&"memscope_final_snapshot.json".to_owned()), "{files:?}");
    assert_eq!(recordings.len(), 1, "{files:?}");
    // The program's name may be cut to what the kernel keeps.
    let (name, pid) = recordings[0]["memscope-".len()..].rsplit_once('-').expect("a pid");
    assert!(program.starts_with(name) && name.len() >= 15.min(program.len()), "{recordings:?}");
    assert_eq!(pid, ran.pid.to_string());
}

#[test]
fn an_extension_is_kept_and_paths_are_relative_to_the_start() {
    let folder = folder();
    std::fs::create_dir(folder.path().join("sub")).expect("a folder");
    let _ = preloaded(folder.path())
        .env("MEMSCOPE_AUTO_EXPORT", "1")
        .env("MEMSCOPE_EXPORT_PATH", "sub/named.json")
        .env("MEMSCOPE_OUTPUT", "sub/rec-%e-%p")
        .run()
        .success();
    let files = names(&folder.path().join("sub"));
    assert_eq!(files.len(), 2, "{files:?}");
    assert!(files.contains(&"named.json".to_owned()), "{files:?}");
    assert!(files.iter().any(|name| name.starts_with("rec-")), "{files:?}");
}

/// The directory at the start is that of the first image, wherever a later one is.
#[test]
fn a_later_image_exports_to_where_the_first_began() {
    for path in [None, Some("sub/x")] {
        let folder = folder();
        std::fs::create_dir(folder.path().join("other")).expect("a folder");
        let script = format!("cd other && exec {}", program::c("stacks", &[]).display());
        let mut command = preloaded(folder.path())
            .with_argv(vec!["sh".into(), "-c".into(), script.into()])
            .env("MEMSCOPE_AUTO_EXPORT", "1");
        if let Some(path) = path {
            command = command.env("MEMSCOPE_EXPORT_PATH", path);
        }
        let ran = command.run().success();
        let json = folder.path().join(path.unwrap_or("memscope_final_snapshot")).with_extension("json");
        assert_eq!(Snapshot::load(&json).processes.len(), 2, "{}", ran.tail());
        assert!(names(&folder.path().join("other")).is_empty());
    }
}

/// The command line is found beside the library, too.
#[test]
fn the_exporter_beside_the_library() {
    let folder = folder();
    let bin = folder.path().join("bin");
    std::fs::create_dir(&bin).expect("a folder");
    for from in [artifacts::library(), artifacts::cli()] {
        std::fs::copy(&from, bin.join(from.file_name().expect("a name"))).expect("a copy");
    }
    let cmd = preloaded(folder.path())
        .without_env("MEMSCOPE_CLI")
        .env("LD_PRELOAD", bin.join("libmemscope.so"))
        .env("MEMSCOPE_AUTO_EXPORT", "1")
        .env("MEMSCOPE_EXPORT_PATH", "x");
    let _ = cmd.run().success();
    assert!(folder.path().join("x.json").exists(), "{:?}", names(folder.path()));
}

/// A library alone, without a command line: the recording stays, and one line says what to run.
#[test]
fn no_exporter_to_be_found() {
    let folder = folder();
    let bin = folder.path().join("bin");
    std::fs::create_dir(&bin).expect("a folder");
    std::fs::copy(artifacts::library(), bin.join("libmemscope.so")).expect("a copy");
    let ran = preloaded(folder.path())
        .without_env("MEMSCOPE_CLI")
        .env("PATH", "/nonexistent")
        .env("LD_PRELOAD", bin.join("libmemscope.so"))
        .env("MEMSCOPE_AUTO_EXPORT", "1")
        .env("MEMSCOPE_EXPORT_PATH", "x")
        .run()
        .success();
    assert!(!folder.path().join("x.json").exists());
    assert_eq!(traces_in(&folder.path().join("rec")).len(), 1);
    assert!(ran.err().contains("memscope-cli analyze"), "{}", ran.tail());
}

/// A bad value: one clear line that names it, and the default.
#[test]
fn bad_values() {
    for (name, value) in [
        ("MEMSCOPE_AUTO_EXPORT", "perhaps"),
        ("MEMSCOPE_EXPORT_FORMAT", "pdf"),
        ("MEMSCOPE_FOLLOW", "yes please"),
        ("MEMSCOPE_THREAD", "-7"),
        ("MEMSCOPE_QUIET", "loud"),
    ] {
        let folder = folder();
        let mut command = preloaded(folder.path()).env("MEMSCOPE_EXPORT_PATH", "x");
        if name != "MEMSCOPE_AUTO_EXPORT" {
            command = command.env("MEMSCOPE_AUTO_EXPORT", "1");
        }
        let ran = command.env(name, value).run().success();
        let lines: Vec<_> = ran.err().lines().filter(|line| line.contains(name)).map(str::to_owned).collect();
        assert_eq!(lines.len(), 1, "{name}={value}\n{}", ran.tail());
        assert!(lines[0].starts_with("memscope: ") && lines[0].contains(value), "{lines:?}");
        let exported = folder.path().join("x.json").exists();
        assert_eq!(exported, name != "MEMSCOPE_AUTO_EXPORT", "{name}: the default holds");
        assert_eq!(traces_in(&folder.path().join("rec")).len(), 1);
    }
}

/// Bad values are complained of once, not in each process of the tree.
#[test]
fn bad_values_in_a_tree() {
    let folder = folder();
    let script = "/bin/true; /bin/true; /bin/sh -c '/bin/true; exit 3'";
    let ran = Cmd::new(["sh", "-c", script])
        .dir(folder.path())
        .env("LD_PRELOAD", artifacts::library())
        .env("MEMSCOPE_OUTPUT", folder.path().join("rec"))
        .env("MEMSCOPE_FOLLOW", "always")
        .run();
    assert_eq!(ran.code(), 3, "{}", ran.tail());
    assert!(traces_in(&folder.path().join("rec")).len() >= 4);
    let said = "memscope: MEMSCOPE_FOLLOW: \"always\" is not 0 or 1: using 1\n";
    assert_eq!(ran.err(), said);
}

/// What `MEMSCOPE_CLI` names is no memscope-cli; empty, it names nothing.
#[test]
fn another_cli() {
    let place = folder();
    let none = place.path().join("none");
    for (cli, said) in [
        (
            none.as_os_str(),
            "no export: MEMSCOPE_CLI names nothing that can be run: run `memscope-cli analyze",
        ),
        ("/bin/true".as_ref(), "no export: run `memscope-cli analyze"),
        ("".as_ref(), "exported to"),
    ] {
        let folder = folder();
        let command = preloaded(folder.path()).env("MEMSCOPE_AUTO_EXPORT", "1").env("MEMSCOPE_CLI", cli);
        let ran = command.env("MEMSCOPE_EXPORT_PATH", "x").run().success();
        assert!(ran.err().contains(said), "{}: {}", cli.display(), ran.tail());
        assert_eq!(folder.path().join("x.json").exists(), cli.is_empty());
    }
}

/// Nowhere to write: the program runs on untouched, and one line says why there is no recording.
#[test]
fn an_output_that_cannot_be_made() {
    let folder = folder();
    let file = folder.path().join("file");
    std::fs::write(&file, "in the way").expect("a file");
    let native = Cmd::new([program::c("calls", &[])]).arg("free").dir(folder.path()).run().success();
    for place in [file.join("rec"), PathBuf::from("/proc/self/rec"), PathBuf::from("/dev/null/rec")] {
        let ran = Cmd::new([program::c("calls", &[])])
            .arg("free")
            .env("LD_PRELOAD", artifacts::library())
            .env("MEMSCOPE_OUTPUT", &place)
            .run()
            .success();
        assert_eq!(ran.out().lines().count(), native.out().lines().count());
        assert_eq!(ran.err().lines().count(), 1, "{}: {}", place.display(), ran.tail());
        assert!(ran.err().starts_with("memscope: "), "{}", ran.err());
    }
}

/// A directory that already holds a recording gets no second one.
#[test]
fn a_directory_with_a_recording() {
    let folder = folder();
    let _ = preloaded(folder.path()).run().success();
    let before = names(&folder.path().join("rec"));
    let ran = preloaded(folder.path()).run().success();
    assert_eq!(names(&folder.path().join("rec")), before, "nothing was added");
    assert!(ran.err().starts_with("memscope: "), "{}", ran.tail());
}

/// Without a thread of ours the program has its own one only, and everything is recorded all the same.
#[test]
fn no_thread_of_ours() {
    let folder = folder();
    let script = "import os; x = [str(i) for i in range(200000)]; print(len(os.listdir('/proc/self/task')))";
    let threads = |value: &str, place: &str| {
        Cmd::new(["/usr/bin/python3", "-S", "-c", script])
            .env("PYTHONMALLOC", "malloc")
            .env("LD_PRELOAD", artifacts::library())
            .env("MEMSCOPE_THREAD", value)
            .env("MEMSCOPE_OUTPUT", folder.path().join(place))
            .env("MEMSCOPE_QUIET", "1")
            .run()
            .success()
            .out()
    };
    assert_eq!(threads("0", "without"), "1\n");
    assert_eq!(threads("1", "with"), "2\n");
    let json = folder.path().join("without.json");
    let _ = analyze(&folder.path().join("without"), &json, &["--allocations", "none"]).success();
    let snapshot = Snapshot::load(&json);
    assert!(snapshot.complete && snapshot.totals().0 > 200_000, "{:?}", snapshot.totals());
}

/// Children are recorded into the same directory, unless that is switched off.
#[test]
fn children_follow() {
    for (follow, images) in [("1", 2), ("0", 1)] {
        let folder = folder();
        let _ = preloaded(folder.path())
            .with_argv(["sh", "-c", "ls /; exit 0"].map(Into::into).to_vec())
            .env("MEMSCOPE_FOLLOW", follow)
            .env("MEMSCOPE_QUIET", "1")
            .run()
            .success();
        let traces = traces_in(&folder.path().join("rec"));
        assert!(if follow == "1" { traces.len() >= images } else { traces.len() == images }, "{traces:?}");
    }
}

/// By hand and through `run`: the same blocks.
#[test]
fn the_same_as_through_run() {
    let program = program::c("calls", &[]);
    let one = Record::new([&program]).arg("free").success().process();
    let other = Record::new([&program]).arg("free").by_hand().success().process();
    assert_eq!(
        (one.stats.total_allocations, one.stats.total_allocated),
        (other.stats.total_allocations, other.stats.total_allocated)
    );
    assert_eq!(one.stats.total_deallocations, other.stats.total_deallocations);
}
