//! Pid namespaces: processes that have other numbers for whoever looks at their recording.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use memscope_tests::TempDir;
use memscope_tests::recording::{analyze, traces_in};
use memscope_tests::snapshot::Process;
use memscope_tests::{Cmd, Record, Snapshot, artifacts, program, things};

/// Before a command: makes it the first process of a namespace of its own.
const APART: [&str; 4] = ["unshare", "--pid", "--fork", "--mount-proc"];

#[track_caller]
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Before a command: it and all that it starts have another time.
const LATER: [&str; 4] = ["unshare", "--fork", "--time", "--boottime=100000"];

/// Records a shell that ends while a process in another namespace goes on, until the file `go` is there; gives
/// the recording, `go` and that process's number here.
#[track_caller]
fn leave_one_behind(folder: &Path, apart: [&str; 4]) -> (PathBuf, PathBuf, u32) {
    let (rec, go, said) = (folder.join("rec"), folder.join("go"), folder.join("said"));
    let script = format!(
        "{} {} {go} <{null} >{said} 2>{null} &\nuntil [ -s {said} ]; do sleep 0.05; done",
        apart.join(" "),
        program::c("waits", &[]).display(),
        go = go.display(),
        said = said.display(),
        null = "/dev/null"
    );
    let ran = Cmd::new([artifacts::cli().as_os_str(), "run".as_ref(), "-o".as_ref(), rec.as_os_str()])
        .args(["sh", "-c", &script])
        .run()
        .success();
    let said = ran.err();
    let named = said.lines().find_map(|line| line.strip_prefix("memscope: still running: "));
    let named = named.unwrap_or_else(|| panic!("{said}"));
    let one = named.split(", ").find(|one| one.contains("(waits")).unwrap_or_else(|| panic!("{said}"));
    (rec, go, one.split(' ').next().and_then(|pid| pid.parse().ok()).expect("its number"))
}

fn named_waits(snapshot: &Snapshot) -> Vec<&Process> {
    snapshot.processes.iter().filter(|process| process.exe.contains("/waits-")).collect()
}

#[track_caller]
fn is_whole(process: &Process, pid: u32) {
    assert_eq!((process.end.as_str(), process.exit_code, process.pid), ("exit", Some(0), pid));
    assert_eq!(process.one_sized(10007).freed_by, "exit");
    assert_eq!(process.one_sized(10009).freed_by, "exit");
    assert_eq!(process.sized(40).len(), 20_000);
}

/// A process's start is told by the time of whoever asks.
#[test]
fn one_that_goes_on_at_another_time() {
    let folder = TempDir::new().expect("a folder");
    let (rec, go, pid) = leave_one_behind(folder.path(), LATER);
    let json = folder.path().join("later.json");
    fs::write(&go, "").expect("a file");
    until("it does not end", || !Path::new(&format!("/proc/{pid}")).exists());
    let _ = analyze(&rec, &json, &["--allocations", "all"]).success();
    let later = Snapshot::load(&json);
    is_whole(named_waits(&later)[0], pid);
    assert!(later.complete, "{:?}", later.incomplete_reason);
}

/// Kills itself; where the second argument is `true`, once the process of the first one has it open.
const OPEN_AND_KILLED: &str = "
import glob, os, sys, time
x = [0] * 10000
def is_open(fd):
    try: return 'Pid:\\t%d\\n' % os.getpid() in open(fd).read()
    except OSError: return False
while sys.argv[2] == 'true' and not any(map(is_open, glob.glob('/proc/%s/fdinfo/*' % sys.argv[1]))): time.sleep(0.01)
os.kill(os.getpid(), 9)
";

/// How one ends that is not our child is known in another time, too: where Linux tells it at all, as `kill` has it.
#[test]
fn one_that_is_killed_at_another_time() {
    let python = things::python();
    for apart in ["", "unshare --fork --time --boottime=100000", "unshare --fork --time --boottime=-1"] {
        // The shell's parent is memscope-cli.
        let script = format!("{apart} {python} -S -c \"$0\" $PPID {}; exit 0", is_told());
        let snapshot =
            Record::new(["sh", "-c", &script, OPEN_AND_KILLED]).allocations("none").success().snapshot();
        let killed: Vec<_> =
            snapshot.processes.iter().filter(|process| process.exe.contains("/python3")).collect();
        let [killed] = killed[..] else { panic!("{} images", killed.len()) };
        let told = if is_told() { ("signal", Some(9)) } else { ("unknown", None) };
        assert_eq!((killed.end.as_str(), killed.signal), told, "{apart}");
    }
}

/// Linux tells since 6.15 how a process ended that is not one's child.
fn is_told() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("the kernel's release");
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|n| n.parse::<u32>().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (6, 15)
}

/// It is left alone as long as it runs, whoever asks, and whole afterwards.
#[test]
fn one_that_goes_on_in_another() {
    let folder = TempDir::new().expect("a folder");
    let (rec, go, pid) = leave_one_behind(folder.path(), APART);
    let json = folder.path().join("early.json");
    let _ = analyze(&rec, &json, &[]).success();
    let early = Snapshot::load(&json);
    let ends: Vec<_> = named_waits(&early).iter().map(|process| process.end.clone()).collect();
    assert_eq!(ends, ["running"]);

    // From a namespace beside it, it can't be seen.
    let aside = Cmd::new(APART).arg(artifacts::cli()).arg("analyze").arg(&rec).arg(&json).run().success();
    assert!(aside.err().contains("another pid namespace"), "{}", aside.err());
    assert!(!Snapshot::load(&json).complete);

    fs::write(&go, "").expect("a file");
    until("it does not end", || !Path::new(&format!("/proc/{pid}")).exists());
    let _ = analyze(&rec, &json, &["--allocations", "all"]).success();
    let later = Snapshot::load(&json);
    assert!(later.complete, "{:?}", later.incomplete_reason);
    let [waits] = named_waits(&later)[..] else { panic!("one image of it") };
    is_whole(waits, 1);
}

/// Processes with the same number share a recording, and none is taken for another's next image.
#[test]
fn many_with_the_same_number() {
    let folder = TempDir::new().expect("a folder");
    let go = folder.path().join("go");
    fs::write(&go, "").expect("a file");
    let one =
        format!("{} {} {} >/dev/null", APART.join(" "), program::c("waits", &[]).display(), go.display());
    let recorded = Record::new(["sh", "-c", &format!("{one} & {one} & {one}; wait; exit 0")]).success();
    assert_eq!(recorded.ran.err(), "");
    let snapshot = recorded.snapshot();
    assert!(snapshot.complete, "{:?}", snapshot.incomplete_reason);
    let all = named_waits(&snapshot);
    assert_eq!(all.len(), 3);
    all.into_iter().for_each(|process| is_whole(process, 1));
    let of_one = traces_in(&recorded.dir())
        .into_iter()
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("1-")));
    assert!(of_one.count() >= 3);
}
