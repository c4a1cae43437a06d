//! Circumstances: whatever a program does to itself or is put into, it runs as it would without us, and the recording is
//! exact or says what it lacks.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use memscope_tests::TempDir;
use memscope_tests::recording::{analyze, traces_in};
use memscope_tests::{Cmd, Process, Ran, Record, Recorded, Snapshot, artifacts, program};

/// The program's work: see `programs/c/circumstances.c`.
pub const ROUNDS: usize = 60_000;

pub fn the_program() -> PathBuf {
    program::c("circumstances", &[])
}

pub fn folder() -> TempDir {
    // Some programs change their user.
    let folder = TempDir::new().expect("a folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("opened");
    folder
}

/// `unshare` and `chroot` need root, as tests in a container have it.
#[track_caller]
pub fn needs_root() {
    let status = fs::read_to_string("/proc/self/status").expect("our own status");
    let user = status.lines().find(|line| line.starts_with("Uid:")).expect("our user");
    assert_eq!(user.split_whitespace().nth(2), Some("0"), "this test needs root");
}

#[track_caller]
pub fn assert_same(ran: &Ran, native: &Ran, what: &str) {
    assert!(!native.out().contains("FAILED"), "{what}: {}", native.tail());
    assert_eq!((ran.out(), ran.code()), (native.out(), native.code()), "{what}: {}", ran.tail());
}

/// The program alone and recorded, each with a folder of its own.
#[track_caller]
fn both(case: &str) -> Recorded {
    let own = folder();
    let native = Cmd::new([the_program()]).arg(case).arg(own.path()).dir(own.path()).run();
    let own = folder();
    let record = Record::of(Cmd::new([the_program()]).arg(case).arg(own.path()).dir(own.path()));
    let recorded = record.run();
    assert_same(&recorded.ran, &native, case);
    recorded
}

#[track_caller]
pub fn assert_work(process: &Process, case: &str, rounds: usize) {
    assert!(process.complete, "{case}: {:?}", process.incomplete_reason);
    assert_eq!(process.stats.lost_events, 0, "{case}");
    assert_eq!(process.sized(40).len(), rounds + 5_000, "{case}");
    assert_eq!(process.one_sized(10007).freed_by, "exit", "{case}");
    assert_eq!(process.one_sized(10009).freed_by, "free", "{case}");
    assert_eq!(process.stats.unknown_frees, 0, "{case}");
}

/// As the native run, and all of it on record.
#[track_caller]
fn exact(case: &str, more_rounds: usize) -> Process {
    let recorded = both(case);
    assert_eq!(recorded.ran.err(), "", "{case}");
    let process = recorded.process();
    assert_work(&process, case, ROUNDS + more_rounds);
    process
}

/// As the native run, and the recording says why it lacks something; what it has adds up.
#[track_caller]
fn honest(case: &str, why: &[&str]) -> Process {
    let recorded = both(case);
    let snapshot = recorded.snapshot();
    let reason = snapshot.incomplete_reason.clone().unwrap_or_default();
    assert!(!snapshot.complete && why.iter().any(|why| reason.contains(why)), "{case}: {reason}");
    assert!(recorded.ran.err().lines().count() <= 1, "{case}: {}", recorded.ran.err());
    let process = snapshot.processes[0].clone();
    let made = process.sized(40).len();
    assert!((5_000..ROUNDS + 2_100_000).contains(&made), "{case}: {made}");
    process
}

#[test]
fn in_no_circumstances() {
    let _ = exact("nothing", 0);
}

#[test]
fn all_descriptors_closed() {
    let _ = exact("closed", 1_000);
    let _ = exact("closed_early", 0);
}

/// With four descriptors allowed, the program gets those that it would get without us.
#[test]
fn few_descriptors() {
    let _ = exact("few", 0);
    // From the very start on.
    let own = folder();
    let script = format!("ulimit -n 4; exec {} few", the_program().display());
    let native = Cmd::new(["sh", "-c", &script]).dir(own.path()).run();
    let recorded = Record::of(Cmd::new(["sh", "-c", &script]).dir(own.path())).run();
    assert_same(&recorded.ran, &native, "ulimit -n 4");
    let snapshot = recorded.snapshot();
    assert_work(snapshot.processes.last().expect("an image"), "ulimit -n 4", ROUNDS);
}

#[test]
fn a_daemon() {
    let own = folder();
    let done = own.path().join("done");
    let folder = folder();
    let record = Record::of(Cmd::new([the_program()]).arg("daemon").arg(&done));
    let ran = record.command_in(folder.path()).run();
    assert_eq!((ran.code(), ran.out().as_str()), (0, ""), "the first process has gone: {}", ran.tail());
    let deadline = Instant::now() + Duration::from_secs(60);
    let json = folder.path().join("later.json");
    loop {
        assert!(Instant::now() < deadline, "the daemon does not end");
        std::thread::sleep(Duration::from_millis(50));
        if fs::read(&done).is_ok_and(|text| text == b"done\n") {
            let _ = analyze(&folder.path().join("rec"), &json, &["--allocations", "all"]).success();
            let snapshot = Snapshot::load(&json);
            let [first, daemon] = &snapshot.processes[..] else { panic!("{}", snapshot.processes.len()) };
            if daemon.end != "running" {
                assert_eq!((first.end.as_str(), first.exit_code), ("_exit", Some(0)));
                assert_eq!((daemon.end.as_str(), daemon.exit_code), ("exit", Some(7)));
                assert!(snapshot.complete, "{:?}", snapshot.incomplete_reason);
                assert_eq!(daemon.sized(40).len(), ROUNDS);
                assert_eq!(daemon.one_sized(10007).freed_by, "exit");
                return;
            }
        }
    }
}

#[test]
fn another_directory_or_root() {
    needs_root();
    let _ = exact("chdir", 0);
    let _ = exact("chroot", 0);
}

/// A process that has done little has no thread of ours and no descriptor, and then takes the recording out of its reach.
#[test]
fn out_of_reach() {
    needs_root();
    let ways = [
        "nothing",
        "chroot",
        "syscall_chroot",
        "setuid",
        "seteuid",
        "syscall_setresuid",
        "setrlimit",
        "prlimit",
        "unshare",
    ];
    let program = program::c("leaves", &[]);
    for way in ways {
        let own = folder();
        let command = |way: &str| Cmd::new([&program]).arg(way).arg(own.path());
        let native = command(way).run();
        let recorded = Record::of(command(way)).run();
        assert_same(&recorded.ran, &native, way);
        assert!(recorded.ran.out().ends_with(" others\n"), "{way}: {}", recorded.ran.out());
        assert_eq!(recorded.ran.err(), "", "{way}");
        let process = recorded.process();
        assert_eq!(process.one_sized(10007).freed_by, "exit", "{way}");
        assert_eq!(process.sized(40).len(), 20_000, "{way}");
        assert_eq!((process.end.as_str(), process.exit_code), ("exit", Some(7)), "{way}");
    }
}

/// The shared memory can't be found any more either: all that is needed of it is there before.
#[test]
fn out_of_reach_and_killed() {
    needs_root();
    let program = program::c("leaves", &[]);
    for way in ["chroot", "syscall_setresuid", "prlimit", "unshare"] {
        let own = folder();
        let recorded = Record::new([&program]).arg(way).arg(own.path()).arg("killed").with_code(128 + 9);
        let process = recorded.process();
        assert!(process.complete, "{way}: {:?}", process.incomplete_reason);
        assert_eq!((process.sized(40).len(), process.sized(10007).len()), (20_000, 1), "{way}");
    }
}

#[test]
fn another_user() {
    needs_root();
    let _ = exact("setuid", 0);
}

/// A child that is forked under any umask has a private trace and spool, and is on record.
#[test]
fn any_umask() {
    for case in ["umask_all", "umask_none"] {
        let recorded = both(case);
        let snapshot = recorded.snapshot();
        assert!(snapshot.complete, "{case}: {:?}", snapshot.incomplete_reason);
        let [parent, child] = &snapshot.processes[..] else { panic!("{case}: {}", snapshot.processes.len()) };
        assert_work(parent, case, ROUNDS);
        assert_eq!(child.sized(40).len(), ROUNDS, "{case}");
        for trace in recorded.traces() {
            assert_eq!(fs::metadata(&trace).expect("a trace").permissions().mode() & 0o777, 0o600, "{case}");
        }
    }
    for umask in ["0777", "0000"] {
        let script = format!("umask {umask}; exec \"$@\"");
        let folder = folder();
        let words = Record::new([the_program()]).arg("nothing").by_hand().command_in(folder.path());
        let ran = words.with_argv(vec!["sh".into(), "-c".into(), script.into(), "sh".into()]);
        let ran = ran.arg(the_program()).arg("nothing").run().with_code(7);
        assert_eq!(ran.out(), "worked\n");
        let rec = folder.path().join("rec");
        assert_eq!(fs::metadata(&rec).expect("made").permissions().mode() & 0o777, 0o700, "{umask}");
    }
}

/// Our thread is in nobody's way: a thread that shares its directory may not enter a mount namespace.
#[test]
fn a_mount_namespace() {
    needs_root();
    let _ = exact("namespace", 100_000);
}

/// A filter that kills for any call of ours: none is made. What one thread is forbidden, our thread may still do, so all is on
/// record; a filter for all threads leaves the memory that was ready.
#[test]
fn a_filter_of_system_calls() {
    let _ = exact("seccomp", 0);
    let _ = exact("seccomp_call", 0);
    let _ = exact("seccomp_all", 2_000);
    let _ = exact("seccomp_kept_busy", 200_000);
    let _ = exact("seccomp_by_number", 0);
    let _ = exact("seccomp_listener", 0);
    let _ = exact("seccomp_listener_all", 0);
}

#[test]
fn a_filter_and_more_than_is_ready() {
    let process = honest("seccomp_flood", &["seccomp"]);
    let (made, lost) = (process.sized(40).len() as u64, process.stats.lost_events);
    assert_eq!(process.one_sized(10009).freed_by, "free");
    // Each event is on record or counted.
    let events = made + process.sized(40).iter().filter(|a| a.freed_by == "free").count() as u64 + lost;
    assert_eq!(events, 2 * (5_000 + ROUNDS as u64 + 1_000_000));
    let one =
        Record::new([the_program()]).arg("seccomp_flood_one").allocations("none").with_code(7).process();
    assert_eq!(one.stats.total_allocations, 5_000 + ROUNDS as u64 + 2_000_000 + 3);
}

/// A refused filter changes nothing: not what an earlier one forbids, either.
#[test]
fn a_filter_that_is_refused() {
    let _ = exact("seccomp_refused", 0);
    let _ = exact("seccomp_twice", 0);
    let _ = exact("seccomp_probe", 0);
    let process = honest("seccomp_strict_refused", &["seccomp"]);
    assert_eq!(process.stats.lost_events, 2 * ROUNDS as u64 + 3);
}

/// Not even the clock is left.
#[test]
fn strict_mode() {
    let process = honest("seccomp_strict", &["seccomp"]);
    assert_eq!(process.sized(40).len(), 5_000);
    assert_eq!(process.exit_code, Some(7));
}

/// A forked child with a filter of its own; its parent goes on without.
#[test]
fn a_filter_in_a_child() {
    let recorded = both("seccomp_fork");
    let snapshot = recorded.snapshot();
    assert!(snapshot.complete, "{:?}", snapshot.incomplete_reason);
    assert_work(&snapshot.processes[0], "seccomp_fork", ROUNDS);
}

/// The child of a `vfork` shares its parent's memory, but not its filter.
#[test]
fn a_filter_in_a_child_of_vfork() {
    let recorded = both("seccomp_vfork");
    let snapshot = recorded.snapshot();
    assert!(snapshot.complete, "{:?}", snapshot.incomplete_reason);
    let [parent, child] = &snapshot.processes[..] else { panic!("{}", snapshot.processes.len()) };
    assert_work(parent, "seccomp_vfork", ROUNDS);
    assert_eq!(child.sized(40).len(), 1_000);
}

#[test]
fn little_address_space() {
    let process = exact("memory", 0);
    assert_eq!(process.stats.failed_allocations, 1);
    let none = honest("no_memory", &["memory"]);
    assert_eq!(none.stats.failed_allocations, 1);
}

/// A limit that leaves no room for both of them is the program's alone.
#[test]
fn too_little_memory_for_both() {
    let script =
        "(ulimit -d 20000; exec \"$0\" nothing); a=$?; (ulimit -v 20000; exec \"$0\" nothing); echo $a $?";
    let program = the_program();
    let words = ["sh".as_ref(), "-c".as_ref(), script.as_ref(), program.as_os_str()];
    let native = Cmd::new(words).run().success();
    let recorded = Record::new(words).run();
    assert_same(&recorded.ran, &native, "two limits");
    let why = "the program's limit leaves no memory for it";
    assert_eq!(recorded.ran.err(), format!("memscope: not recording: {why}\n").repeat(2));
    let snapshot = recorded.snapshot();
    let reasons: Vec<_> = snapshot.unrecorded.iter().map(|program| program.reason.as_str()).collect();
    assert_eq!(reasons, ["the program's limit leaves no memory for its recording"; 2]);
}

#[test]
fn a_limit_of_file_sizes() {
    let events = |process: &Process| {
        let stats = &process.stats;
        assert_eq!(stats.unknown_frees, 0);
        stats.total_allocations + stats.total_deallocations + stats.lost_events
    };
    // What the trace takes no more is counted.
    // (A quick program has ended before the first write.)
    let limited = both("file_size").snapshot().processes.swap_remove(0);
    assert_eq!(limited.complete, limited.stats.lost_events == 0, "{:?}", limited.incomplete_reason);
    assert_eq!(events(&limited), events(&exact("nothing", 0)));
    assert!(honest("file_size_small", &["limit"]).stats.lost_events > 0);
    // From the start on: nothing can be recorded, which one line says.
    let script = format!("ulimit -f 0; exec {} nothing", the_program().display());
    let native = Cmd::new(["sh", "-c", &script]).run();
    let folder = folder();
    let record = Record::new(["sh", "-c", &script]).by_hand();
    let ran = record.command_in(folder.path()).run();
    assert_same(&ran, &native, "ulimit -f 0");
    assert!(ran.err().starts_with("memscope: ") && ran.err().lines().count() <= 2, "{}", ran.err());
}

#[test]
fn little_stack_left() {
    let process = exact("little_stack", ROUNDS);
    assert_eq!(process.one_sized(10037).freed_by, "free");
    let process = exact("little_signal_stack", 10_000);
    assert_eq!(process.sized(10039).len(), 1_000);
}

/// What a hook takes of the stack on top of the function that it stands for, in bytes at the most: ARCHITECTURE.md says it, too.
const HOOKS_STACK: usize = 4096;

/// What each call in `programs/c/stack_need.c` takes of the stack.
fn stack_needs(ran: &Ran) -> Vec<(String, usize)> {
    let need = |line: &str| {
        let (name, bytes) = line.split_once(' ')?;
        Some((name.to_owned(), bytes.parse().ok()?))
    };
    ran.out().lines().map(|line| need(line).unwrap_or_else(|| panic!("{line}"))).collect()
}

/// What is deep runs on a stack of its own: a forked child's first call too.
#[test]
fn what_hooks_take_of_the_stack() {
    let program = program::c("stack_need", &["-pthread", "-Wl,-z,now"]);
    let native = stack_needs(&Cmd::new([&program]).run().success());
    assert_eq!(native.len(), 13);
    for option in ["--quiet", "--no-thread"] {
        let recorded = Record::new([&program]).option(option).success();
        let needs = stack_needs(&recorded.ran);
        for ((name, need), (_, natively)) in needs.iter().zip(&native) {
            assert!(*need <= natively + HOOKS_STACK, "{option} {name}: {need}, natively {natively}");
        }
        assert_eq!(needs.len(), native.len());
    }
    let recorded = Record::new([program.as_os_str(), "first".as_ref(), "4096".as_ref()]).success();
    assert!(stack_needs(&recorded.ran)[0].1 <= 4096);
    let snapshot = recorded.snapshot();
    assert!(snapshot.complete && snapshot.processes.len() == 2, "{:?}", snapshot.incomplete_reason);
    assert_eq!(snapshot.processes[1].stats.total_allocations, 6);
}

#[test]
fn strange_names() {
    let folder = folder();
    let name = std::ffi::OsStr::from_bytes(b"a b\xff'\n");
    let (dir, argument) = (folder.path().join(name), std::ffi::OsStr::from_bytes(b"nothing"));
    fs::create_dir(&dir).expect("made");
    let program = dir.join(name);
    fs::copy(the_program(), &program).expect("copied");
    for record in [Record::new([&program]), Record::new([&program]).by_hand()] {
        let ran = record.arg(argument).arg(name).command_in(&dir).run().with_code(7);
        assert_eq!(ran.out(), "worked\n", "{}", ran.tail());
        let json = dir.join("out.json");
        let _ = analyze(&dir.join("rec"), &json, &["--allocations", "all"]).success();
        let snapshot = Snapshot::load(&json);
        assert_work(&snapshot.processes[0], "strange names", ROUNDS);
        assert_eq!(snapshot.processes[0].args[2], "a b\u{fffd}'\n");
        assert!(snapshot.processes[0].exe.ends_with("/a b\u{fffd}'\n"), "{}", snapshot.processes[0].exe);
        fs::remove_dir_all(dir.join("rec")).expect("removed");
    }
}

/// Someone else traces the program, or us and it.
#[test]
fn traced() {
    let own = folder();
    let log = own.path().join("log");
    let strace = ["strace", "-f", "-qq", "-e", "trace=exit_group,clone,clone3", "-o"];
    let words: Vec<_> = strace.iter().map(Into::into).chain([log.clone().into_os_string()]).collect();
    let inside = Record::new(words.clone()).arg(the_program()).arg("nothing").with_code(7);
    let snapshot = inside.snapshot();
    let traced = snapshot.processes.iter().find(|p| p.exe.contains("circumstances")).expect("the program");
    assert_work(traced, "strace in memscope", ROUNDS);
    let folder = folder();
    let command = Record::new([the_program()]).arg("nothing").command_in(folder.path());
    let ran = command.with_argv(words.into_iter().chain(command.argv().iter().cloned()).collect()).run();
    assert_eq!((ran.code(), ran.out().as_str()), (7, "worked\n"), "{}", ran.tail());
    let snapshot = Snapshot::load(&folder.path().join("rec/snapshot.json"));
    assert_work(&snapshot.processes[0], "memscope in strace", ROUNDS);
}

/// Another interposer, before and behind ours: each sees every call.
#[test]
fn beside_another_interposer() {
    let other = program::c_library("passes_on", &[]);
    let ours = artifacts::library();
    for (first, second) in [(&other, &ours), (&ours, &other)] {
        let folder = folder();
        let record = Record::new([the_program()]).arg("nothing").by_hand().command_in(folder.path());
        let preload = format!("{}:{}", first.display(), second.display());
        let ran = record.env("LD_PRELOAD", preload).run().with_code(7);
        assert_eq!(ran.out(), "worked\npassed on: 65000\n", "{}", ran.tail());
        let snapshot = Snapshot::load(&folder.path().join("by-hand.json"));
        assert_work(&snapshot.processes[0], "two interposers", ROUNDS);
    }
    let recorded = Record::new([the_program()]).arg("nothing").env("LD_PRELOAD", &other).with_code(7);
    // memscope-cli itself has the other library, too.
    assert!(recorded.ran.out().starts_with("worked\npassed on: 65000\n"), "{}", recorded.ran.out());
    assert_work(&recorded.process(), "the user's own entry", ROUNDS);
}

#[track_caller]
fn assert_steps_aside(program: &Path, says_by_hand: bool) {
    let native = Cmd::new([program]).arg("nothing").run();
    // Under `run`: it can't be recorded, so it is not started.
    let folder = folder();
    let rec = folder.path().join("rec");
    let ran = Record::new([program]).arg("nothing").command_in(folder.path()).run();
    assert_eq!((ran.code(), ran.out().as_str()), (125, ""), "{}", ran.tail());
    assert!(ran.err().contains("AddressSanitizer") && ran.err().lines().count() <= 2, "{}", ran.err());
    assert!(!rec.exists());
    // By hand, and in a child: it runs as it would without us.
    let ran = Record::new([program]).arg("nothing").by_hand().command_in(folder.path()).run();
    assert_same(&ran, &native, "by hand");
    if says_by_hand {
        assert!(ran.err().contains("AddressSanitizer") && ran.err().lines().count() == 1, "{}", ran.err());
        assert!(!rec.exists());
    } else {
        // It names nothing that the loader would know; what is missing the analysis finds out.
        assert_eq!(ran.err(), "");
        fs::remove_dir_all(&rec).expect("removed");
    }
    let script = format!("{} nothing; exit $?", program.display());
    let ran = Record::new(["sh", "-c", &script]).command_in(folder.path()).run();
    assert_same(&ran, &native, "in a child");
    assert_eq!(traces_in(&rec).len(), if says_by_hand { 1 } else { 2 });
    let snapshot = Snapshot::load(&rec.join("snapshot.json"));
    let listed: Vec<_> =
        snapshot.unrecorded.iter().map(|one| (one.reason.as_str(), one.parent_pid)).collect();
    let expected =
        ("it has AddressSanitizer in it, which brings its own allocator", snapshot.processes[0].pid);
    assert_eq!(listed, if says_by_hand { vec![expected] } else { vec![] });
}

#[test]
fn with_a_sanitizer() {
    let flags = ["-fsanitize=address", "-Wno-maybe-uninitialized", "-Wno-error"];
    assert_steps_aside(&program::c("circumstances", &flags), true);
    let flags = ["-fsanitize=address", "-static-libasan", "-Wno-maybe-uninitialized", "-Wno-error"];
    assert_steps_aside(&program::c("circumstances", &flags), false);
}
