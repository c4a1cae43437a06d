//! Process trees: every way to start a program, whatever environment is built for it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use memscope_tests::TempDir;
use memscope_tests::recording::analyze;
use memscope_tests::snapshot::Process;
use memscope_tests::{Cmd, Ran, Record, Snapshot, artifacts, program, things};

const WAYS: [&str; 18] = [
    "execve",
    "execv",
    "execvp",
    "execvpe",
    "execl",
    "execlp",
    "execle",
    "fexecve",
    "execveat",
    "syscall_execve",
    "syscall_execveat",
    "syscall_vfork",
    "vfork",
    "posix_spawn",
    "posix_spawnp",
    "system",
    "popen",
    "wordexp",
];

/// What the child sees of its environment, without our library: (what is preloaded, the other lines).
fn environment(out: &str) -> (Vec<&str>, Vec<&str>) {
    let (preload, others): (Vec<&str>, Vec<&str>) =
        out.lines().partition(|line| line.starts_with("LD_PRELOAD="));
    let entries = preload.iter().flat_map(|line| line["LD_PRELOAD=".len()..].split([':', ' ']));
    (entries.filter(|entry| !entry.ends_with("/libmemscope.so")).collect(), others)
}

#[track_caller]
fn same_but_for_us(native: &Ran, recorded: &Ran, about: &str) {
    assert_eq!(recorded.code(), native.code(), "{about}\n{}", recorded.tail());
    assert_eq!(environment(&recorded.out()), environment(&native.out()), "{about}");
    assert_eq!(recorded.err(), native.err(), "{about}");
}

/// The image of the program that was started, whatever stood between.
#[track_caller]
fn leaf(snapshot: &Snapshot) -> &Process {
    let leaves: Vec<_> = snapshot
        .processes
        .iter()
        .filter(|process| process.args.get(1).is_some_and(|a| a == "leaf"))
        .collect();
    assert_eq!(leaves.len(), 1, "{:?}", snapshot.processes.iter().map(|p| &p.args).collect::<Vec<_>>());
    leaves[0]
}

#[track_caller]
fn assert_started(snapshot: &Snapshot, about: &str) {
    assert!(snapshot.complete, "{about}: {:?}", snapshot.incomplete_reason);
    assert!(snapshot.unrecorded.is_empty(), "{about}: {:?}", snapshot.unrecorded);
    let (parent, leaf) = (&snapshot.processes[0], leaf(snapshot));
    assert_eq!(parent.one_sized(10007).freed_by, "exit", "{about}");
    assert_eq!(parent.one_sized(10009).freed_by, "free", "{about}");
    assert!(parent.sized(20011).is_empty() && parent.sized(20013).is_empty(), "{about}");
    assert_eq!(leaf.one_sized(20011).freed_by, "free", "{about}");
    assert_eq!(leaf.one_sized(20013).freed_by, "exit", "{about}");
    assert_eq!((leaf.end.as_str(), leaf.exit_code), ("exit", Some(7)), "{about}");
    assert_eq!(leaf.parent_pid, parent.pid, "{about}");
    assert_eq!((leaf.stats.unknown_frees, leaf.stats.inherited_frees), (0, 0), "{about}");
    assert!(leaf.sized(10007).is_empty() && leaf.sized(10009).is_empty(), "{about}");
}

#[track_caller]
fn every_way(environment: &str) {
    for way in WAYS {
        let about = format!("{way} with the environment `{environment}`");
        let words = [program::c("trees", &[]).into_os_string(), way.into(), environment.into()];
        let native = Cmd::new(&words).run().with_code(7);
        let recorded = Record::new(&words).run();
        same_but_for_us(
            &without_ours(&native, environment),
            &without_ours(&recorded.ran, environment),
            &about,
        );
        assert_started(&recorded.snapshot(), &about);
    }
}

/// An environment that is handed on has the variables of `run`.
fn without_ours(ran: &Ran, environment: &str) -> Ran {
    let ours = |line: &&str| line.starts_with("MEMSCOPE_") || line.starts_with("RUST_BACKTRACE=");
    let handed_on = environment == "same";
    let lines: Vec<String> =
        ran.out().lines().filter(|line| !handed_on || !ours(line)).map(|line| format!("{line}\n")).collect();
    Ran { stdout: lines.concat().into_bytes(), ..ran.clone() }
}

#[test]
fn with_the_same_environment() {
    every_way("same");
}

/// What it preloads itself stays in order; nothing else is added.
#[test]
fn with_an_environment_of_its_own() {
    every_way("own");
}

#[test]
fn with_an_empty_environment() {
    every_way("none");
}

/// A function that this machine's C library may not have.
#[test]
fn by_a_function_of_a_later_libc() {
    let later = program::c_library("later_libc", &[]);
    for environment in ["same", "own", "none"] {
        let trees = program::c("trees", &[]);
        let words = [trees.as_os_str(), "pidfd_spawn".as_ref(), environment.as_ref()];
        let native = Cmd::new(words).env("LD_PRELOAD", &later).run().with_code(7);
        let recorded = Record::new(words).env("LD_PRELOAD", &later).run();
        same_but_for_us(
            &without_ours(&native, environment),
            &without_ours(&recorded.ran, environment),
            environment,
        );
        assert_started(&recorded.snapshot(), environment);
    }
    // Listed under its number, which only the descriptor tells.
    let fixed = program::c("families", &["-static"]);
    let script = format!(
        "import ctypes, os\nfd = ctypes.c_int()\n\
        argv = (ctypes.c_char_p * 3)(b'families', b'many', None)\nenv = (ctypes.c_char_p * 1)(None)\n\
        r = ctypes.CDLL(None).pidfd_spawn(ctypes.byref(fd), b'{}', None, None, argv, env)\n\
        print(r, os.wait()[0])",
        fixed.display()
    );
    let recorded = Record::new([&things::python(), "-c", &script])
        .env("LD_PRELOAD", &later)
        .allocations("none")
        .success();
    let [program] = &recorded.snapshot().unrecorded[..] else { panic!("{}", recorded.ran.tail()) };
    assert_eq!(recorded.ran.out(), format!("0 {}\n", program.pid));
}

/// After it has given up its rights, a program can't write into the recording, which is its user's before. What it starts runs
/// as it would, and is listed.
#[test]
fn after_giving_up_rights() {
    let python = things::python();
    let code = "import os, sys\nos.setuid(65534)\n\
        child = os.fork()\n\
        if child == 0: os.execv('/bin/echo', ['echo', 'replaced'])\n\
        os.waitpid(child, 0)\n\
        os.waitpid(os.posix_spawn('/bin/echo', ['echo', 'spawned'], {}), 0)\n\
        child = os.fork()\n\
        if child == 0: x = [bytearray(1000) for i in range(1000)]; os._exit(0)\n\
        os.waitpid(child, 0)\n\
        try: os.execv('/no/such/program', ['none'])\n\
        except FileNotFoundError: print('not there', flush=True)\n\
        os.execv('/bin/echo', ['echo', 'last'])\n";
    let native = Cmd::new([&python, "-S", "-c", code]).run().success();
    let recorded = Record::new([&python, "-S", "-c", code]).allocations("none").success();
    assert_eq!(recorded.ran.out(), native.out());
    assert_eq!(recorded.ran.err(), native.err());
    let snapshot = recorded.snapshot();
    assert_eq!(snapshot.processes.len(), 1);
    assert_eq!(snapshot.processes[0].end, "exec");
    let mut echoed: Vec<_> =
        snapshot.unrecorded.iter().filter(|p| p.exe.ends_with("/echo")).map(|p| p.args[1].clone()).collect();
    echoed.sort();
    assert_eq!(echoed, ["last", "replaced", "spawned"], "{:?}", snapshot.unrecorded);
    let others: Vec<_> = snapshot.unrecorded.iter().filter(|p| !p.exe.ends_with("/echo")).collect();
    assert!(others.iter().all(|p| p.reason.contains("permission denied")), "{others:?}");
    assert!(!others.is_empty(), "the forked child that allocates");
    let pid = snapshot.processes[0].pid;
    for one in &snapshot.unrecorded {
        let last = one.args.last().is_some_and(|arg| arg == "last");
        assert_eq!((one.pid == pid, one.parent_pid == pid), (last, !last), "{one:?}");
    }
}

/// `setpriv` keeps rights over the change of its user that the next program no longer has.
#[test]
fn after_giving_up_rights_with_the_next_program() {
    let words = ["setpriv", "--reuid=65534", "--clear-groups", "/bin/echo", "last"];
    let native = Cmd::new(words).run().success();
    for options in [&[][..], &["--no-thread"]] {
        let record = options.iter().fold(Record::new(words), |record, option| record.option(option));
        let recorded = record.success();
        assert_eq!((recorded.ran.out(), recorded.ran.err()), (native.out(), native.err()));
        let snapshot = recorded.snapshot();
        let [process] = &snapshot.processes[..] else { panic!("{:?}", snapshot.processes) };
        assert_eq!((process.end.as_str(), process.exit_code), ("exec", None));
        let [program] = &snapshot.unrecorded[..] else { panic!("{:?}", snapshot.unrecorded) };
        assert_eq!((program.pid, &program.args[1]), (process.pid, &"last".to_owned()));
        assert!(program.exe.ends_with("/echo") && program.reason.contains("another user"), "{program:?}");
    }
    // With an ambient capability (to open what others have made private) it stays in the recording.
    let kept = ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"];
    let words = [&words[..3], &kept, &words[3..]].concat();
    let snapshot = Record::new(&words).success().snapshot();
    assert_eq!((snapshot.processes.len(), snapshot.unrecorded.len()), (2, 0), "{:?}", snapshot.unrecorded);
}

/// By hand, and into a directory that `LD_PRELOAD` cannot name.
#[test]
fn by_hand_and_from_an_odd_place() {
    for place in ["rec", "a place: $1"] {
        let folder = TempDir::new().expect("a folder");
        let rec = folder.path().join(place);
        let words = [program::c("trees", &[]).into_os_string(), "execle".into(), "own".into()];
        let ran = Cmd::new(&words)
            .env("LD_PRELOAD", artifacts::library())
            .env("MEMSCOPE_OUTPUT", &rec)
            .env("MEMSCOPE_QUIET", "1")
            .run();
        same_but_for_us(&Cmd::new(&words).run(), &ran, place);
        let json = folder.path().join("out.json");
        let _ = analyze(&rec, &json, &[]).success();
        assert_started(&Snapshot::load(&json), place);
        let left = preload_folder(&ran.out());
        assert!(!left.exists(), "{} is left", left.display());
    }
}

/// The folder of the library that the child was given.
#[track_caller]
fn preload_folder(out: &str) -> PathBuf {
    let line = out.lines().find(|line| line.starts_with("LD_PRELOAD=")).expect("LD_PRELOAD");
    let library = Path::new(line["LD_PRELOAD=".len()..].split([':', ' ']).next().expect("an entry"));
    library.parent().expect("a folder").to_owned()
}

#[test]
fn a_shell_script_that_clears_the_environment() {
    let trees = program::c("trees", &[]);
    let folder = TempDir::new().expect("a folder");
    let script = folder.path().join("script");
    let text =
        format!("#!/bin/sh\nenv -i A=1 B=2 {0} leaf 20011\nenv -i sh -c '{0} leaf 30011'\n", trees.display());
    std::fs::write(&script, text).expect("a script");
    let _ = Cmd::new(["chmod", "755"]).arg(&script).run().success();
    let native = Cmd::new([&script]).run().with_code(7);
    let recorded = Record::new([&script]).run();
    same_but_for_us(&native, &recorded.ran, "env -i");
    let snapshot = recorded.snapshot();
    assert!(snapshot.complete, "{:?}", snapshot.incomplete_reason);
    for size in [20011, 30011] {
        let found: Vec<_> = snapshot.processes.iter().filter(|p| !p.sized(size).is_empty()).collect();
        assert_eq!(found.len(), 1, "{size}");
        assert_eq!(found[0].one_sized(size + 2).freed_by, "exit");
    }
    let folder = preload_folder(&recorded.ran.out());
    assert!(!folder.exists(), "{} is left", folder.display());
}

/// As CPython's own `test_empty_env` does.
#[test]
fn python_with_an_empty_environment() {
    let python = things::python();
    let code = "import subprocess, sys\n\
        r = subprocess.run([sys.executable, '-c', 'import os; print(sorted(os.environ))'], env={}, stdout=subprocess.PIPE)\n\
        print(r.returncode, r.stdout.decode().replace(\"'LD_PRELOAD', \", '').replace(\", 'LD_PRELOAD'\", '').replace(\"'LD_PRELOAD'\", ''))";
    let native = Cmd::new([&python, "-c", code]).run().success();
    let recorded = Record::new([&python, "-c", code]).allocations("none").success();
    assert_eq!(recorded.ran.out(), native.out());
    assert_eq!(recorded.ran.err(), native.err());
    let snapshot = recorded.snapshot();
    let children: Vec<_> =
        snapshot.processes[1..].iter().filter(|process| process.stats.total_allocations > 1000).collect();
    assert_eq!(children.len(), 1, "the child is recorded");
    assert_eq!(children[0].parent_pid, snapshot.processes[0].pid);
}

/// Between `vfork` and what follows, calls are the parent's; its recording goes on after the child's end.
#[test]
fn vfork_without_a_program() {
    for how in ["vfork_exit", "vfork_exec_fails"] {
        for option in ["--inline-stacks", "--no-thread"] {
            let recorded =
                Record::new([program::c("trees", &[])]).arg(how).arg("none").option(option).with_code(5);
            assert_eq!(recorded.ran.out(), "", "{how}");
            let process = recorded.process();
            assert_eq!(process.sized(30011).len(), 30_000, "{how}");
            assert!(process.sized(30011).iter().all(|block| block.freed_by == "free"), "{how}");
            assert_eq!(process.one_sized(10009).freed_by, "free", "{how}");
            assert_eq!((process.end.as_str(), process.exit_code), ("exit", Some(5)), "{how}");
        }
    }
}

/// Programs that cannot be recorded run as they would, and are listed.
#[test]
fn what_cannot_be_recorded_is_listed() {
    let folder = TempDir::new().expect("a folder");
    let fixed = program::c("families", &["-static"]);
    // A loader that works, but is not called as glibc's is.
    let musl = folder.path().join("ld-musl-x86_64.so.1");
    std::fs::copy("/lib64/ld-linux-x86-64.so.2", &musl).expect("a loader");
    let other = program::c("trees", &[&format!("-Wl,--dynamic-linker={}", musl.display())]);
    let script = format!(
        "{0} many 1; env -i {0} many 1; {1} leaf 20011 | grep LD_PRELOAD; env -i A=1 {1} leaf 20011; echo $?",
        fixed.display(),
        other.display()
    );
    let native = Cmd::new(["sh", "-c", &script]).run();
    let recorded = Record::new(["sh", "-c", &script]).run();
    assert_eq!((recorded.ran.code(), recorded.ran.out()), (native.code(), native.out()));
    assert_eq!(recorded.ran.err(), native.err());
    let snapshot = recorded.snapshot();
    assert!(snapshot.complete, "{:?}", snapshot.incomplete_reason);
    let listed = |path: &Path| -> Vec<_> {
        snapshot.unrecorded.iter().filter(|program| Path::new(&program.exe) == path).collect()
    };
    assert_eq!(listed(&fixed).len(), 2, "{:?}", snapshot.unrecorded);
    assert_eq!(listed(&other).len(), 2, "{:?}", snapshot.unrecorded);
    assert_eq!(snapshot.unrecorded.len(), 4);
    for program in &snapshot.unrecorded {
        assert_eq!(program.parent_pid, snapshot.processes[0].pid);
        assert!(program.start_time >= snapshot.processes[0].start_time);
        let why = if Path::new(&program.exe) == fixed { "static" } else { "loader" };
        assert!(program.reason.contains(why), "{}", program.reason);
    }
    assert!(listed(&fixed).iter().all(|p| p.args[1..] == ["many", "1"]));
    // A program that could not be started was none.
    let failed = Record::new(["sh", "-c", "exec /no/such/program"]).with_code(127).snapshot();
    assert!(failed.unrecorded.is_empty(), "{:?}", failed.unrecorded);
}

/// `--no-follow`: the children see what they would see, and are not recorded, however they are started.
#[test]
fn children_that_are_not_followed() {
    for environment in ["same", "own", "none"] {
        for way in ["execve", "posix_spawn", "system"] {
            let words = [program::c("trees", &[]).into_os_string(), way.into(), environment.into()];
            let recorded = Record::new(&words).option("--no-follow").with_code(7);
            let native = Cmd::new(&words).run();
            if environment != "same" {
                assert_eq!(recorded.ran.out(), native.out(), "{way}: nothing is added");
            }
            let process = recorded.process();
            assert_eq!(process.one_sized(10007).freed_by, "exit");
            assert!(recorded.snapshot().unrecorded.is_empty());
        }
    }
    let forked = super::forks::family("many", "3").option("--no-follow").success();
    assert_eq!(forked.process().one_sized(10007).freed_by, "free");
    let clears = "env -i LD_PRELOAD=\"$LD_PRELOAD\" ls / >/dev/null";
    let filtered = Record::of(Cmd::new(["sh", "-c", clears])).option("--no-follow").success();
    assert_eq!(filtered.process().args[0], "sh");
}

/// What a thread does to the environment while another one is in `system` or `popen` stays, and nothing of ours does.
#[test]
fn an_environment_that_changes_during_system() {
    let shells = program::c("shells", &["-pthread"]).into_os_string();
    let hows = ["added", "removed", "replaced", "nothing"].map(OsString::from);
    let recorded = Record::new([shells].iter().chain(&hows)).success();
    assert_eq!(recorded.ran.out(), "done\n");
    assert_eq!(recorded.ran.err(), "");
    let snapshot = recorded.snapshot();
    assert!(snapshot.complete, "{:?}", snapshot.incomplete_reason);
    // The shells of all calls.
    let shells = snapshot.processes.iter().filter(|process| process.args.first().is_some_and(|a| a == "sh"));
    assert_eq!(shells.count(), 16);
}

/// The same for changes at any moment.
#[test]
fn an_environment_that_changes_all_the_time() {
    let shells = program::c("shells", &["-pthread"]);
    let words = [shells.as_os_str(), "busy".as_ref(), "100".as_ref()];
    assert_eq!(Cmd::new(words).run().success().out(), "done\n");
    let recorded = Record::new(words).allocations("none").success();
    assert_eq!((recorded.ran.out(), recorded.ran.err()), ("done\n".to_owned(), String::new()));
    let snapshot = recorded.snapshot();
    let shells = snapshot.processes.iter().filter(|process| process.args.first().is_some_and(|a| a == "sh"));
    assert_eq!(shells.count(), 100);
}

/// Little stack, a large environment, descriptors that are counted on: for programs that are recorded, scripts, and
/// programs that can only be listed.
#[test]
fn with_little_to_start_a_program_with() {
    let folder = TempDir::new().expect("a folder");
    let listed = folder.path().join("listed.c");
    std::fs::write(&listed, "int main(void) { return 0; }\n").expect("a source");
    let (fixed, script) = (folder.path().join("listed"), folder.path().join("script"));
    let _ = Cmd::new(["cc", "-static", "-o"]).arg(&fixed).arg(&listed).run().success();
    std::fs::write(&script, "#!/bin/sh\nexit 0\n").expect("a script");
    let _ = Cmd::new(["chmod", "755"]).arg(&script).run().success();
    let tight = program::c("tight", &["-pthread"]);
    let run = |how: &str, path: &Path| {
        let recorded = Record::new([tight.as_os_str(), how.as_ref(), path.as_os_str()]).success();
        assert_eq!((recorded.ran.out(), recorded.ran.err()), Default::default(), "{how} {}", path.display());
        let snapshot = recorded.snapshot();
        assert!(snapshot.complete, "{:?}", snapshot.incomplete_reason);
        (snapshot.processes.len() - 1, snapshot.unrecorded.len())
    };
    for how in ["thread", "handler"] {
        assert_eq!(run(how, Path::new("/bin/true")), (1, 0), "{how}");
        assert_eq!(run(how, &script), (1, 0), "{how}: a script");
        assert_eq!(run(how, &fixed), (0, 1), "{how}: a static program");
    }
    assert_eq!(run("actions", Path::new("/bin/true")), (0, 0));
    assert_eq!(run("nowhere", Path::new("/bin/true")), (0, 0));
    assert_eq!(run("actions", &fixed), (0, 0));
    assert_eq!(run("many", Path::new("/bin/true")), (105, 0));
}

/// Where the loader of the new program can't open our library, it is not told to: it would say so on the program's stderr.
#[test]
fn with_no_descriptor_to_start_a_program_with() {
    for (limit, processes) in [("3", 1), ("4", 2)] {
        let script = format!("ulimit -n {limit}; exec /bin/true");
        let command = ["sh", "-c", &script];
        let native = Cmd::new(command).run();
        let recorded = Record::new(command).with_code(native.code());
        assert_eq!((recorded.ran.out(), recorded.ran.err()), (native.out(), native.err()), "{limit}");
        assert_eq!(recorded.snapshot().processes.len(), processes, "{limit}");
    }
}

/// A build: make, the compiler and its parts, each its own image.
#[test]
fn a_build() {
    let folder = TempDir::new().expect("a folder");
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("a source");
    write(
        "Makefile",
        "all: a\na: a.o b.o\n\t$(CC) -o $@ $^\n%.o: %.c\n\tenv -i PATH=\"$$PATH\" $(CC) -O1 -c -o $@ $<\nclean:\n\trm -f a *.o\n",
    );
    write("a.c", "int b(void);\nint main(void) { return b(); }\n");
    write("b.c", "int b(void) { return 0; }\n");
    let make = |target: &str| Cmd::new(["make", "-j2", target]).dir(folder.path());
    let native = make("all").run().success();
    let _ = make("clean").run().success();
    let recorded = Record::of(make("all")).allocations("none").success();
    let sorted = |out: String| {
        let mut lines: Vec<String> = out.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(recorded.ran.out()), sorted(native.out()));
    assert_eq!(recorded.ran.err(), native.err());
    assert!(folder.path().join("a").exists());
    let snapshot = recorded.snapshot();
    assert!(snapshot.complete, "{:?}", snapshot.incomplete_reason);
    let images = |name: &str| snapshot.processes.iter().filter(|p| p.exe.ends_with(name)).count();
    assert_eq!((images("/make"), images("/cc1"), images("as")), (1, 2, 2));
}
