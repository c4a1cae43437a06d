//! Tests of what is written, against the schema.

use std::fs;
use std::io;
use std::path::Path;

use memscope_shared::model::{
    AllocationInfo, End, FreedBy, HistogramBucket, Included, Module, Process, SCHEMA_VERSION, SiteStats,
    Snapshot, Stack, StackFrame, Thread, TimelinePoint,
};
use serde_json::Value;

use super::atomic;
use super::json::{SnapshotWriter, Stacks, Style};
use crate::error::Error;

/// A validator of snapshots.
pub fn schema() -> jsonschema::Validator {
    let schema =
        serde_json::from_str(include_str!("../../../tests/fixtures/snapshot.schema.json")).expect("JSON");
    jsonschema::validator_for(&schema).expect("a schema")
}

/// Fails where the text is not a valid snapshot.
pub fn validated(text: &[u8]) -> Value {
    let value =
        serde_json::from_slice(text).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(text)));
    let errors: Vec<String> =
        schema().iter_errors(&value).map(|e| format!("{e} at {}", e.instance_path())).collect();
    assert!(errors.is_empty(), "{errors:?}");
    value
}

fn frame(function: &str, address: u64) -> StackFrame {
    StackFrame { function: Some(function.to_owned()), line: Some(7), address, ..StackFrame::default() }
}

/// A process with two stacks, one of everything, and these allocations listed.
pub fn process(pid: u32) -> Process {
    Process {
        pid,
        exe: "/bin/a \u{fffd}\"\\\n".to_owned(),
        args: vec!["a".to_owned(), String::new()],
        start_time: 1_700_000_000_000_000_000,
        end_time: 1_700_000_001_000_000_000,
        end: End::Signal,
        signal: Some(9),
        complete: true,
        allocations_included: Included::All,
        frames: vec![frame("main", 16), frame("f<'a>", 32), StackFrame::default()],
        stacks: vec![
            Stack { id: 2, frames: vec![1, 0], stats: SiteStats::default(), ..Stack::default() },
            Stack { id: 1, frames: vec![2], truncated: true, ..Stack::default() },
        ],
        threads: vec![Thread { id: 1, name: None, start_time: 5, end_time: None }],
        timeline: vec![TimelinePoint { time: 5, rss: None, ..TimelinePoint::default() }],
        lifetime_histogram: vec![HistogramBucket { upto_ns: None, allocations: 2, bytes: 3 }],
        modules: vec![Module { path: "/bin/a".to_owned(), build_id: None, start: 0, end: 64 }],
        ..Process::default()
    }
}

/// A freed block and one that is not.
pub fn allocations() -> [AllocationInfo; 2] {
    let freed = AllocationInfo {
        ptr: 0x1000,
        size: 24,
        timestamp_alloc: 10,
        timestamp_dealloc: Some(2_000_010),
        lifetime_ms: Some(2),
        lifetime_ns: 2_000_000,
        thread_id: 1,
        dealloc_thread_id: Some(1),
        stack_id: Some(2),
        ..AllocationInfo::default()
    };
    let leaked = AllocationInfo {
        ptr: 0x2000,
        is_leaked: true,
        freed_by: FreedBy::Exit,
        dealloc_thread_id: None,
        stack_id: Some(1),
        ..freed.clone()
    };
    [freed, leaked]
}

/// A snapshot without its processes' allocations.
pub fn snapshot(processes: Vec<Process>) -> Snapshot {
    Snapshot {
        schema_version: SCHEMA_VERSION,
        generator: "memscope-cli test".to_owned(),
        command: vec!["a".to_owned(), "x y".to_owned()],
        complete: true,
        processes,
        ..Snapshot::default()
    }
}

/// The JSON of a snapshot whose processes all have [`allocations`].
pub fn written(snapshot: &Snapshot, style: Style) -> Vec<u8> {
    let write = || -> io::Result<Vec<u8>> {
        let mut writer = SnapshotWriter::new(Vec::new(), snapshot, style)?;
        for process in &snapshot.processes {
            writer.begin_process(process)?;
            let stacks = Stacks::of(process);
            for allocation in allocations() {
                writer.allocation(&allocation, &stacks)?;
            }
            writer.end_process(process)?;
        }
        writer.finish()
    };
    write().expect("memory takes everything")
}

#[test]
fn a_snapshot_passes_the_schema_and_comes_back() {
    let snapshot = snapshot(vec![process(1), process(2)]);
    let text = written(&snapshot, Style::default());
    validated(&text);
    let back: Snapshot = serde_json::from_slice(&text).expect("the model");
    assert_eq!(back.processes.len(), 2);
    assert_eq!(back.processes[0].exe, snapshot.processes[0].exe);
    assert_eq!(back.processes[0].end, End::Signal);
    assert_eq!(back.processes[1].frames, snapshot.processes[1].frames);
    let rows = &back.processes[1].allocations;
    assert_eq!((rows.len(), rows[0].ptr, rows[1].freed_by), (2, 0x1000, FreedBy::Exit));
    assert!(rows[0].stack_trace.is_none());
}

#[test]
fn the_writer_says_all_that_the_model_has() {
    let mut whole = snapshot(vec![process(3)]);
    let text = written(&whole, Style::default());
    whole.processes[0].allocations = allocations().to_vec();
    let by_hand: Value = serde_json::from_slice(&text).expect("JSON");
    assert_eq!(by_hand, serde_json::to_value(&whole).expect("JSON"));
}

#[test]
fn empty_lists_are_lists() {
    let nothing = Process {
        frames: Vec::new(),
        stacks: Vec::new(),
        allocations_included: Included::None,
        ..process(1)
    };
    let snapshot = snapshot(vec![nothing]);
    let mut writer = SnapshotWriter::new(Vec::new(), &snapshot, Style::default()).expect("written");
    writer.begin_process(&snapshot.processes[0]).expect("written");
    writer.end_process(&snapshot.processes[0]).expect("written");
    let value = validated(&writer.finish().expect("written"));
    assert_eq!(value["processes"][0]["allocations"], serde_json::json!([]));
}

#[test]
fn stacks_can_stand_in_each_allocation() {
    let value = validated(&written(&snapshot(vec![process(1)]), Style { inline_stacks: true }));
    let rows = &value["processes"][0]["allocations"];
    assert_eq!(rows[0]["stack_trace"][0]["function"], "f<'a>");
    assert_eq!(rows[0]["stack_trace"][1]["function"], "main");
    assert_eq!(rows[1]["stack_trace"].as_array().expect("a list").len(), 1);
}

#[test]
fn a_file_appears_whole_or_not_at_all() {
    use std::io::Write;
    let root = tempfile::tempdir().expect("a directory");
    let path = root.path().join("out.json");
    fs::write(&path, "before").expect("written");
    let failed = atomic::write::<()>(&path, |out| {
        out.write_all(b"half").expect("buffered");
        Err(Error::failed("x", "y"))
    });
    assert!(failed.is_err());
    assert_eq!(fs::read(&path).expect("there"), b"before");
    assert_eq!(fs::read_dir(root.path()).expect("listed").count(), 1);
    atomic::write(&path, |out| {
        out.write_all(b"after").expect("buffered");
        Ok(())
    })
    .expect("written");
    assert_eq!(fs::read(&path).expect("there"), b"after");
}

#[test]
fn a_link_stays_a_link() {
    use std::io::Write;
    let root = tempfile::tempdir().expect("a directory");
    let (file, link) = (root.path().join("file"), root.path().join("link"));
    fs::write(&file, "before").expect("written");
    std::os::unix::fs::symlink(&file, &link).expect("linked");
    atomic::write(&link, |out| {
        out.write_all(b"after").expect("buffered");
        Ok(())
    })
    .expect("written");
    assert!(fs::symlink_metadata(&link).expect("there").is_symlink());
    assert_eq!(fs::read(&file).expect("there"), b"after");
}

#[test]
fn what_cannot_be_written_is_said() {
    let root = tempfile::tempdir().expect("a directory");
    let said = |path: &Path| atomic::write(path, |_| Ok(())).expect_err("refused").to_string();
    let missing = root.path().join("no/such");
    let error = said(&missing.join("out.json"));
    assert!(error.contains(&format!("{}: there is no such directory", missing.display())), "{error}");
    let error = said(root.path());
    assert!(error.contains(&root.path().display().to_string()), "{error}");
}
