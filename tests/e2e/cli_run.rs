//! `memscope-cli run`: exit statuses, errors, options.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use memscope_tests::TempDir;
use memscope_tests::snapshot::Stats;
use memscope_tests::{Cmd, Ran, Record, Snapshot, artifacts, program};

fn folder() -> TempDir {
    TempDir::new().expect("a folder")
}

/// `memscope-cli` with these words, in a folder.
fn cli(dir: &Path, words: &[&str]) -> Ran {
    Cmd::new([artifacts::cli()]).args(words).dir(dir).run()
}

/// The error is one line `memscope: what: why`, perhaps followed by what to do; no panic, no backtrace.
#[track_caller]
fn assert_error(ran: &Ran, code: i32, about: &str) {
    assert_eq!(ran.code(), code, "{}", ran.tail());
    let text = ran.err();
    let first = text.lines().next().unwrap_or_default();
    assert!(first.starts_with("memscope: ") && first.matches(": ").count() >= 2, "{text}");
    assert!(text.contains(about), "it should speak of {about:?}: {text}");
    assert!(!text.contains("panicked") && !text.contains("stack backtrace"), "{text}");
    assert_eq!(ran.out(), "", "nothing on standard output");
}

#[test]
fn the_programs_own_status() {
    for code in [0, 1, 7, 125, 126, 127, 255] {
        let recorded = Record::new(["perl", "-e", &format!("exit {code}")]).with_code(code);
        let process = &recorded.snapshot().processes[0];
        assert_eq!((process.end.as_str(), process.exit_code, process.signal), ("exit", Some(code), None));
    }
}

#[test]
fn the_signal_that_killed_it() {
    for (name, number) in [("TERM", 15), ("KILL", 9), ("ABRT", 6), ("SEGV", 11), ("USR1", 10)] {
        let recorded = Record::new(["sh", "-c", &format!("kill -s {name} $$")]).with_code(128 + number);
        let process = &recorded.snapshot().processes[0];
        assert_eq!(
            (process.end.as_str(), process.exit_code, process.signal),
            ("signal", None, Some(number)),
            "{name}"
        );
        assert!(process.complete, "{name}: {:?}", process.incomplete_reason);
    }
}

#[test]
fn no_such_program() {
    let dir = folder();
    assert_error(
        &cli(dir.path(), &["run", "--", "no-such-program-anywhere"]),
        127,
        "no-such-program-anywhere",
    );
    assert_error(&cli(dir.path(), &["run", "./not-here"]), 127, "not-here");
    assert_eq!(fs::read_dir(dir.path()).expect("the folder").count(), 0, "no recording is left");
}

#[test]
fn a_program_that_cannot_be_run() {
    let dir = folder();
    let file = dir.path().join("plain-file");
    fs::write(&file, "no program").expect("a file");
    assert_error(&cli(dir.path(), &["run", "./plain-file"]), 126, "plain-file");
    assert_error(&cli(dir.path(), &["run", "."]), 126, ".");
    // The right to run it, but no format that the kernel knows.
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("permissions");
    fs::write(&file, [0x7f, b'E', b'L', b'F', 9, 9, 9, 9]).expect("a file");
    let ran = cli(dir.path(), &["run", "./plain-file"]);
    assert!([125, 126].contains(&ran.code()), "{}", ran.tail());
    assert!(ran.err().starts_with("memscope: "), "{}", ran.tail());
}

#[test]
fn a_static_program() {
    let dir = folder();
    let program = program::c("stacks", &["-static"]);
    let ran = cli(dir.path(), &["run", "--", program.to_str().expect("a plain path"), "fault"]);
    assert_error(&ran, 125, "static");
    assert_eq!(ran.out(), "", "it was not started: it would have reported");
}

#[test]
fn a_static_pie_program() {
    let dir = folder();
    let program = program::c("stacks", &["-static-pie"]);
    assert_error(&cli(dir.path(), &["run", "--", program.to_str().expect("a plain path")]), 125, "static");
}

#[test]
fn a_program_of_another_loader() {
    let dir = folder();
    let source = artifacts::source_dir().join("programs/c/other_loader.c");
    // The loader's name is all that counts; such a program could not even start here.
    let program = program::compile("gcc", &source, &["-Wl,--dynamic-linker=/lib/ld-musl-x86_64.so.1"]);
    assert_error(&cli(dir.path(), &["run", "--", program.to_str().expect("a plain path")]), 125, "musl");
}

#[test]
fn a_program_of_another_architecture() {
    let dir = folder();
    let mut bytes = fs::read(program::c("stacks", &[])).expect("a program");
    bytes[18] = 0xb7; // e_machine: AArch64
    let path = dir.path().join("foreign");
    fs::write(&path, bytes).expect("a program");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("permissions");
    assert_error(&cli(dir.path(), &["run", "./foreign"]), 125, "foreign");
}

#[test]
fn a_setuid_program() {
    let dir = folder();
    let path = dir.path().join("privileged");
    fs::copy(program::c("stacks", &[]), &path).expect("a program");
    // For root a setuid-root program raises nothing, and may be recorded; another owner's is different.
    let _ = Cmd::new(["chown".as_ref(), "1:1".as_ref(), path.as_os_str()]).run().success();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o4755)).expect("permissions");
    assert_error(&cli(dir.path(), &["run", "./privileged"]), 125, "set-user-ID");
}

#[test]
fn an_existing_recording_is_refused() {
    let dir = folder();
    let _ = cli(dir.path(), &["run", "--quiet", "-o", "rec", "true"]).success();
    assert_error(&cli(dir.path(), &["run", "--quiet", "-o", "rec", "true"]), 125, "rec");
}

#[test]
fn an_empty_directory_is_taken() {
    let dir = folder();
    fs::create_dir(dir.path().join("rec")).expect("a folder");
    let _ = cli(dir.path(), &["run", "--quiet", "-o", "rec", "true"]).success();
    assert!(dir.path().join("rec/snapshot.json").exists());
}

#[test]
fn a_directory_that_cannot_be_made() {
    let dir = folder();
    fs::write(dir.path().join("file"), "in the way").expect("a file");
    for place in ["file", "file/rec", "/proc/rec"] {
        assert_error(&cli(dir.path(), &["run", "-o", place, "true"]), 125, place);
    }
}

#[test]
fn wrong_usage() {
    let dir = folder();
    for words in [
        &[][..],
        &["run"],
        &["run", "--export", "pdf", "true"],
        &["run", "--no-such-option", "true"],
        &["run", "--allocations", "some", "true"],
        &["analyze"],
        &["analyze", "one"],
        &["report"],
        &["no-such-command"],
    ] {
        let ran = cli(dir.path(), words);
        assert_eq!(ran.code(), 2, "{words:?}\n{}", ran.tail());
        assert_eq!(ran.out(), "", "{words:?}");
        assert!(!ran.err().is_empty(), "{words:?}");
    }
    let ran = cli(dir.path(), &["check", "--", "true"]);
    assert_eq!(ran.code(), 2, "{}", ran.tail());
    assert!(ran.err().contains("not available yet"), "{}", ran.tail());
}

#[test]
fn help_and_version() {
    let dir = folder();
    assert!(cli(dir.path(), &["--help"]).success().out().contains("analyze"));
    assert!(cli(dir.path(), &["run", "--help"]).success().out().contains("--no-follow"));
    assert!(cli(dir.path(), &["--version"]).success().out().starts_with("memscope-cli "));
}

#[test]
fn inputs_that_are_none() {
    let dir = folder();
    fs::write(dir.path().join("junk.trace"), "this is no trace").expect("a file");
    fs::write(dir.path().join("junk.json"), "{\"a\": 1}").expect("a file");
    fs::create_dir(dir.path().join("empty")).expect("a folder");
    for input in ["missing", "junk.trace", "junk.json", "empty"] {
        for words in [&["analyze", input, "out.html"][..], &["report", input]] {
            assert_error(&cli(dir.path(), words), 125, input);
        }
        assert!(!dir.path().join("out.html").exists(), "no report of {input}");
    }
}

/// A snapshot of a later version is named as such, whatever else it holds.
#[test]
fn a_snapshot_of_a_later_version() {
    let dir = folder();
    fs::write(dir.path().join("later.json"), "{\"schema_version\": 99, \"else\": []}").expect("a file");
    assert_error(&cli(dir.path(), &["report", "later.json"]), 125, "a newer memscope");
}

/// What is said of several processes is what the snapshot holds.
#[test]
fn the_summary_of_several_processes() {
    let dir = folder();
    let script = "ls / >/dev/null; ls -R /usr/include >/dev/null; exit 0";
    let said = cli(dir.path(), &["run", "-o", "rec", "sh", "-c", script]).success().err();
    let snapshot = Snapshot::load(&dir.path().join("rec/snapshot.json"));
    let sum = |value: fn(&Stats) -> u64| snapshot.processes.iter().map(|p| value(&p.stats)).sum::<u64>();
    let line = said.lines().find(|line| line.contains("process images")).unwrap_or_else(|| panic!("{said}"));
    let plain = line.replace(',', "");
    let images = snapshot.processes.len();
    let begin = format!("memscope: sh: {images} process images {} allocations", sum(|s| s.total_allocations));
    assert!(plain.starts_with(&begin), "{begin}\n{plain}");
    let largest = snapshot.processes.iter().max_by_key(|p| p.stats.total_allocated).expect("one");
    let named = format!("ls (pid {}): {} allocations", largest.pid, largest.stats.total_allocations);
    assert!(plain.contains(&named), "{named}\n{plain}");
    // The report says the same sums.
    let shown = cli(dir.path(), &["report", "rec"]).success().out();
    let sums = line.split(": ").nth(2).and_then(|rest| rest.split(';').next()).expect("the sums");
    assert!(shown.replace('\n', " ").contains(sums), "{sums}\n{shown}");
}

/// What the words mean: everything behind the first that is no option of ours is the program's.
#[test]
fn with_and_without_two_dashes() {
    let dir = folder();
    let plain =
        cli(dir.path(), &["run", "--quiet", "-o", "a", "echo", "--export", "html", "--", "-x"]).success();
    assert_eq!(plain.out(), "--export html -- -x\n");
    let dashes = cli(dir.path(), &["run", "--quiet", "-o", "b", "--", "echo", "--quiet"]).success();
    assert_eq!(dashes.out(), "--quiet\n");
    assert!(dir.path().join("a/snapshot.json").exists() && !dir.path().join("a/report.html").exists());
    let snapshot = Snapshot::load(&dir.path().join("a/snapshot.json"));
    assert_eq!(snapshot.command, ["echo", "--export", "html", "--", "-x"]);
    assert_eq!(snapshot.processes[0].args, ["echo", "--export", "html", "--", "-x"]);
}

/// `command` is what was typed; `args` is what the kernel made of it.
#[test]
fn the_command_of_a_script() {
    let dir = folder();
    let script = dir.path().join("x.sh");
    fs::write(&script, "#!/bin/sh\nls / >/dev/null\nexec ls / >/dev/null\n").expect("a script");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("permissions");
    let typed = ["./x.sh", "", "two words"];
    let _ = cli(dir.path(), &[&["run", "--quiet", "-o", "rec"], &typed[..]].concat()).success();
    let snapshot = Snapshot::load(&dir.path().join("rec/snapshot.json"));
    assert_eq!(snapshot.command, typed);
    assert_eq!(snapshot.processes[0].args, ["/bin/sh", "./x.sh", "", "two words"]);
    assert!(snapshot.processes.len() >= 3, "the shell, its child, and what it became");
    let shown = cli(dir.path(), &["report", "rec"]).success().out();
    assert!(shown.starts_with("memscope: ./x.sh '' 'two words'\n"), "{shown}");
    // One trace alone: that of the first process knows it, too; the later image is a program of its own.
    let first = snapshot.processes[0].pid;
    let alone = |image: usize| {
        let (trace, json) = (format!("rec/{first}-{image}.trace"), format!("{image}.json"));
        let _ = cli(dir.path(), &["analyze", &trace, &json]).success();
        Snapshot::load(&dir.path().join(json)).command
    };
    assert_eq!(alone(0), typed);
    assert_eq!(alone(1), ["ls", "/"]);
}

#[test]
fn what_is_exported() {
    for (option, files) in [
        ("json", &["snapshot.json"][..]),
        ("html", &["report.html"]),
        ("both", &["report.html", "snapshot.json"]),
        ("none", &[]),
    ] {
        let dir = folder();
        let ran = cli(dir.path(), &["run", "--export", option, "-o", "rec", "echo", "hello"]).success();
        assert_eq!(ran.out(), "hello\n", "nothing is added to standard output");
        let mut found: Vec<String> = fs::read_dir(dir.path().join("rec"))
            .expect("a recording")
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .filter(|name| !name.ends_with(".trace"))
            .collect();
        found.sort();
        assert_eq!(found, files, "{option}");
        // What it says ends with the paths and the exit status.
        let said = ran.err();
        assert!(files.iter().all(|file| said.contains(&format!("rec/{file}"))), "{said}");
        assert!(said.lines().last().unwrap_or_default().contains('0'), "the exit status: {said}");
    }
}

#[test]
fn quiet_is_quiet() {
    let dir = folder();
    let ran = cli(
        dir.path(),
        &["run", "--quiet", "--export", "both", "-o", "rec", "sh", "-c", "echo out; echo err >&2"],
    )
    .success();
    assert_eq!((ran.out().as_str(), ran.err().as_str()), ("out\n", "err\n"));
}

#[test]
fn the_default_directory() {
    let dir = folder();
    let _ = cli(dir.path(), &["run", "--quiet", "ls"]).success();
    let names: Vec<String> = fs::read_dir(dir.path())
        .expect("the folder")
        .map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    assert_eq!(names.len(), 1, "{names:?}");
    let pid =
        names[0].strip_prefix("memscope-ls-").unwrap_or_else(|| panic!("memscope-PROGRAM-PID: {names:?}"));
    let snapshot = Snapshot::load(&dir.path().join(&names[0]).join("snapshot.json"));
    assert_eq!(snapshot.processes[0].pid.to_string(), pid);
}

#[test]
fn which_allocations_are_listed() {
    let program = program::c("calls", &[]);
    for which in ["all", "live", "none"] {
        let process = Record::new([&program]).arg("free").allocations(which).success().process();
        assert_eq!(process.allocations_included, which);
        let listed = process.allocations.len() as u64;
        let stats = process.stats;
        assert_eq!(
            listed,
            match which {
                "all" => stats.total_allocations,
                "live" => stats.active_allocations,
                _ => 0,
            }
        );
    }
}

/// A limit of open files that is too low for us stays the program's own matter.
#[test]
fn few_files_may_be_open() {
    let dir = folder();
    let script = "ulimit -S -n 6; exec \"$0\" run --quiet -o rec sh -c 'ulimit -S -n'";
    let ran = Cmd::new(["sh", "-c", script]).arg(artifacts::cli()).dir(dir.path()).run().success();
    assert_eq!(ran.out(), "6\n");
    assert!(Snapshot::load(&dir.path().join("rec/snapshot.json")).complete);
}

/// What is left of a recording without its traces is not overwritten.
#[test]
fn a_snapshot_of_another_recording_stays() {
    let dir = folder();
    fs::create_dir(dir.path().join("rec")).expect("made");
    fs::write(dir.path().join("rec/snapshot.json"), "mine").expect("written");
    let ran = cli(dir.path(), &["run", "--quiet", "-o", "rec", "ls"]);
    assert_eq!((ran.code(), ran.out().as_str()), (125, ""), "{}", ran.err());
    assert!(ran.err().contains("already holds a recording"), "{}", ran.err());
    assert_eq!(fs::read_to_string(dir.path().join("rec/snapshot.json")).expect("there"), "mine");
}

/// A snapshot cannot give more than it has, which is said.
#[test]
fn a_snapshot_has_no_more_allocations_than_it_was_given() {
    let dir = folder();
    let _ = cli(dir.path(), &["run", "--quiet", "-o", "rec", "--allocations", "live", "ls"]).success();
    for (wanted, said, has) in [("all", true, "live"), ("live", false, "live"), ("none", false, "none")] {
        let words = ["analyze", "--allocations", wanted, "rec/snapshot.json", "again.json"];
        let ran = cli(dir.path(), &words).success();
        let says = ran.err().contains("lists only the live allocations");
        assert_eq!(says, said, "{wanted}: {}", ran.err());
        let again = Snapshot::load(&dir.path().join("again.json"));
        assert_eq!(again.processes[0].allocations_included, has);
    }
}

/// The default: all of them up to 100,000, above that those that are live.
#[test]
fn which_are_listed_by_default() {
    let dir = folder();
    let program = memscope_tests::things::workload("churn.c");
    for (n, expected) in [("5000", "all"), ("99000", "all"), ("150000", "live")] {
        let _ = cli(dir.path(), &["run", "--quiet", "-o", n, program.to_str().expect("a plain path"), n])
            .success();
        let snapshot = Snapshot::load(&dir.path().join(n).join("snapshot.json"));
        assert_eq!(snapshot.processes[0].allocations_included, expected, "{n}");
    }
}

#[test]
fn stacks_in_line() {
    let recorded = Record::new([program::c("stacks", &[])]).option("--inline-stacks").success();
    let process = recorded.process();
    let allocation = process.one_sized(10007);
    let inline = allocation.stack_trace.as_ref().expect("filled in");
    assert_eq!(inline.iter().collect::<Vec<_>>(), process.frames(allocation));
    let without = Record::new([program::c("stacks", &[])]).success().process();
    assert!(without.allocations.iter().all(|a| a.stack_trace.is_none()));
}

#[test]
fn only_the_first_process() {
    let shell = || Record::new(["sh", "-c", "ls / >/dev/null; exit 0"]);
    assert!(shell().success().snapshot().processes.len() >= 2);
    let first = shell().option("--no-follow").success().process();
    assert!(first.args[0] == "sh", "{:?}", first.args);
}

/// Environment: what is added, and nothing else.
#[test]
fn the_environment_that_is_passed_on() {
    let env = Cmd::new(["env", "-0"]).env("MINE", "a\nb").env("EMPTY", "");
    let native = env.run().success().out();
    let recorded = Record::of(env).success().ran.out();
    let native: Vec<&str> = native.split_terminator('\0').collect();
    let recorded: Vec<&str> = recorded.split_terminator('\0').collect();
    assert!(native.iter().all(|variable| recorded.contains(variable)), "{recorded:?}");
    for added in recorded.iter().filter(|variable| !native.contains(variable)) {
        let name = added.split('=').next().unwrap_or_default();
        assert!(name == "LD_PRELOAD" || name == "RUST_BACKTRACE" || name.starts_with("MEMSCOPE_"), "{added}");
    }
    assert!(recorded.contains(&"RUST_BACKTRACE=1"));
    let kept = Record::of(Cmd::new(["env", "-0"]).env("RUST_BACKTRACE", "full")).success().ran.out();
    assert!(kept.split('\0').any(|variable| variable == "RUST_BACKTRACE=full"));
}

/// The program's own `LD_PRELOAD` stays, behind ours.
#[test]
fn the_programs_own_preload_stays() {
    let bump = program::c_library("bump", &[]);
    let env = Cmd::new(["env"]).env("LD_PRELOAD", &bump);
    let out = Record::of(env).success().ran.out();
    let value = out.lines().find_map(|line| line.strip_prefix("LD_PRELOAD=")).expect("LD_PRELOAD");
    let entries: Vec<PathBuf> = value.split([':', ' ']).map(PathBuf::from).collect();
    assert_eq!(entries.len(), 2, "{value}");
    assert_eq!(entries[1], bump);
}

/// Standard input, output, error and the working directory are the program's.
#[test]
fn streams_and_directory_are_passed_through() {
    let dir = folder();
    let ran = Record::of(Cmd::new(["sh", "-c", "cat; pwd; echo gone >&2"]).stdin("given").dir(dir.path()))
        .success()
        .ran;
    let here = dir.path().canonicalize().expect("a folder");
    assert_eq!(ran.out(), format!("given{}\n", here.display()));
    assert_eq!(ran.err(), "gone\n");
}
