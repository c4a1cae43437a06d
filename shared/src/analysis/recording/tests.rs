use super::super::testing::{TraceBuilder, Words};
use super::*;
use crate::trace::{EndKind, FrameHeader};

fn trace(pid: u32, parent: u32, first_stamp: u64) -> TraceBuilder {
    // Numbers that no process has.
    let mut trace = TraceBuilder::new(90_000).stream(1, Words::new().alloc(0x10, first_stamp, 0, 8));
    trace.process.pid = u32::MAX - 100 + pid;
    trace.process.parent_pid = u32::MAX - 100 + parent;
    trace
}

fn write(dir: &Path, name: &str, trace: &TraceBuilder) {
    fs::write(dir.join(name), trace.bytes()).unwrap();
}

fn names(recording: &Recording) -> Vec<String> {
    recording.traces.iter().map(|r| r.path.file_name().unwrap().to_string_lossy().into_owned()).collect()
}

#[test]
fn the_root_comes_first_then_the_order_of_start() {
    let dir = tempfile::tempdir().unwrap();
    let mut replaced = trace(5, 1, 2_000);
    replaced.process.execed = true;
    write(dir.path(), "5-2.trace", &replaced);
    write(dir.path(), "5-1.trace", &trace(5, 7, 2_000));
    write(dir.path(), "6-1.trace", &trace(6, 7, 2_000));
    write(dir.path(), "7-1.trace", &trace(7, 1, 2_000));
    fs::write(dir.path().join("snapshot.json"), "{}").unwrap();
    fs::write(dir.path().join("a-b.trace"), "no trace of ours").unwrap();
    let recording = Recording::open(dir.path()).unwrap();
    assert_eq!(names(&recording), ["7-1.trace", "5-1.trace", "5-2.trace", "6-1.trace"]);
    assert!(recording.problems.is_empty());
    assert!(recording.traces.iter().all(|recorded| !recorded.running));
}

#[test]
fn the_order_is_that_of_the_start_times() {
    let dir = tempfile::tempdir().unwrap();
    // Some events are earlier than the first reading of the clock.
    for (pid, first) in [(5, 900), (6, 500), (7, 70_000), (8, 700)] {
        write(dir.path(), &format!("{pid}-1.trace"), &trace(pid, 1, first));
    }
    let recording = Recording::open(dir.path()).unwrap();
    let starts: Vec<_> = recording
        .traces
        .iter()
        .map(|trace| super::super::analyze(&trace.path, super::super::Options::default()).unwrap().start_time)
        .collect();
    assert!(starts.is_sorted(), "{starts:?}");
    assert_eq!(names(&recording), ["6-1.trace", "8-1.trace", "5-1.trace", "7-1.trace"]);
}

#[test]
fn what_cannot_be_read_does_not_hide_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "1-1.trace", &trace(1, 0, 2_000));
    fs::write(dir.path().join("2-1.trace"), "not a trace at all").unwrap();
    let recording = Recording::open(dir.path()).unwrap();
    assert_eq!(names(&recording), ["1-1.trace"]);
    assert_eq!(recording.problems.len(), 1);
    assert!(recording.problems[0].1.to_string().contains("not a memscope trace"));
    assert!(Recording::open(dir.path().join("2-1.trace")).is_err());
}

#[test]
fn unfinished_traces_are_completed() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "1-1.trace", &TraceBuilder { end: None, ..trace(1, 0, 2_000) });
    let path = dir.path().join("1-1.trace");
    assert!(TraceFile::open(&path).unwrap().end().is_none());
    let recording = Recording::open(&path).unwrap();
    assert_eq!((recording.traces.len(), recording.traces[0].running), (1, false));
    assert_eq!(TraceFile::open(&path).unwrap().end().map(|end| end.kind), Some(EndKind::Unknown));
}

#[test]
fn a_running_process_is_left_alone() {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let after_name = stat.rsplit_once(')').unwrap().1;
    let mut running = TraceBuilder { end: None, ..trace(1, 0, 2_000) };
    running.process.pid = std::process::id();
    running.process.start_ticks = after_name.split_whitespace().nth(19).unwrap().parse().unwrap();
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "1-1.trace", &running);
    let before = fs::read(dir.path().join("1-1.trace")).unwrap();
    let recording = Recording::open(dir.path()).unwrap();
    assert!(recording.traces[0].running && recording.problems.is_empty());
    assert_eq!(fs::read(dir.path().join("1-1.trace")).unwrap(), before);
    assert!(FrameHeader::from_bytes(&before[64..]).is_some());
}

#[test]
fn nothing_to_open() {
    let dir = tempfile::tempdir().unwrap();
    let text = |path: &Path| Recording::open(path).unwrap_err().to_string();
    assert!(text(dir.path()).contains("there is no recording in it"));
    assert!(text(&dir.path().join("missing")).contains("No such file"));
}
