//! Tests of reading snapshots back.

use std::fs;
use std::path::{Path, PathBuf};

use memscope_shared::model::{Included, Snapshot};

use super::Input;
use crate::args::{Listed, ListingArgs};
use crate::error::Result;
use crate::export::json::Style;
use crate::export::tests::{process, snapshot, validated, written};
use crate::export::{Plan, export};

fn open(path: &Path) -> Result<Snapshot> {
    Ok(export(Input::find(path)?, &Plan { keep: true, ..Plan::default() })?.snapshot)
}

fn copy(input: &Path, output: &Path, listing: ListingArgs) {
    let plan = Plan { json: Some(output), listing, ..Plan::default() };
    Input::find(input).and_then(|input| export(input, &plan)).expect("written");
}

struct Bench(tempfile::TempDir);

impl Bench {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, content).expect("written");
        path
    }

    /// Copies a snapshot of two processes with two allocations each.
    fn copied(&self, listing: ListingArgs) -> Snapshot {
        let input = self.file("in.json", written(&snapshot(vec![process(1), process(2)]), Style::default()));
        let output = self.0.path().join("out.json");
        copy(&input, &output, listing);
        let text = fs::read(output).expect("there");
        validated(&text);
        serde_json::from_slice(&text).expect("the model")
    }
}

#[test]
fn a_snapshot_is_read_without_its_allocations() {
    let bench = Bench::new();
    let whole = snapshot(vec![process(1), process(2)]);
    let path = bench.file("in.json", written(&whole, Style::default()));
    let read = open(&path).expect("read");
    assert_eq!(read.processes.len(), 2);
    assert!(
        read.processes.iter().all(|p| p.allocations.is_empty() && p.allocations_included == Included::All)
    );
    assert_eq!(read.processes[1].frames, whole.processes[1].frames);
    assert_eq!(read.command, whole.command);
}

#[test]
fn a_snapshot_can_be_copied() {
    let copy = Bench::new().copied(ListingArgs::default());
    assert!(
        copy.processes.iter().all(|p| p.allocations.len() == 2 && p.allocations_included == Included::All)
    );
    assert_eq!(copy.processes[1].pid, 2);
    assert_eq!(copy.processes[1].stacks.len(), 2);
}

#[test]
fn a_copy_may_list_less_and_say_more() {
    let listing = ListingArgs { allocations: Some(Listed::Live), inline_stacks: true };
    let copy = Bench::new().copied(listing);
    let rows = &copy.processes[0].allocations;
    assert_eq!((rows.len(), rows[0].is_leaked), (1, true));
    assert!(rows[0].stack_trace.is_some());
    assert_eq!(copy.processes[0].allocations_included, Included::Live);
    let listing = ListingArgs { allocations: Some(Listed::None), inline_stacks: false };
    assert!(Bench::new().copied(listing).processes.iter().all(|p| p.allocations.is_empty()));
}

#[test]
fn a_copy_never_claims_more_than_there_is() {
    let bench = Bench::new();
    let mut live = process(1);
    live.allocations_included = Included::Live;
    let input = bench.file("in.json", written(&snapshot(vec![live]), Style::default()));
    let output = bench.0.path().join("out.json");
    copy(&input, &output, ListingArgs { allocations: Some(Listed::All), inline_stacks: false });
    let copy: Snapshot = serde_json::from_slice(&fs::read(output).expect("there")).expect("the model");
    assert_eq!(copy.processes[0].allocations_included, Included::Live);
    assert_eq!(copy.processes[0].allocations.len(), 1);
}

#[test]
fn damaged_snapshots_are_refused_with_a_reason() {
    let bench = Bench::new();
    let whole = written(&snapshot(vec![process(1)]), Style::default());
    for length in [1, 50, whole.len() / 2, whole.len() - 3] {
        let path = bench.file("cut.json", &whole[..length]);
        let error = open(&path).expect_err("refused");
        assert!(error.to_string().contains("not a snapshot"), "{error}");
        assert_eq!(error.to_string().lines().count(), 1);
    }
    let text = String::from_utf8(whole).expect("text");
    let future = bench.file("future.json", text.replace("\"schema_version\": 1", "\"schema_version\": 2"));
    let error = open(&future).expect_err("refused");
    assert!(error.to_string().contains("schema_version is 2"), "{error}");
    let foreign = bench.file("foreign.json", "{\"a\": 1}");
    assert!(open(&foreign).is_err());
    let mut edited = snapshot(vec![process(1)]);
    edited.processes[0].stacks[0].frames.push(4_000_000);
    let edited = bench.file("edited.json", serde_json::to_vec(&edited).expect("JSON"));
    let error = open(&edited).expect_err("refused");
    assert!(error.to_string().contains("frames that are not in its list"), "{error}");
}

#[test]
fn other_files_are_refused() {
    let bench = Bench::new();
    for content in ["", "hello", "<html>"] {
        assert!(Input::find(&bench.file("other", content)).is_err());
    }
    assert!(Input::find(&bench.0.path().join("missing")).is_err());
}
