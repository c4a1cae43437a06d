//! Reading a snapshot JSON without holding its allocations.
//!
//! The file is read from its beginning to its end; what a list of allocations holds is skipped
//! ([`read`]) or handed on one by one ([`copy`]).

use std::cell::RefCell;
use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Write};
use std::path::Path;

use memscope_shared::model::{
    AllocationInfo, End, HistogramBucket, Included, Module, Process, SCHEMA_VERSION, Snapshot, Stack,
    StackFrame, StaticAllocator, Stats, Thread, TimelinePoint, Unrecorded, Variable,
};
use serde::Deserialize;
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::args::ListingArgs;
use crate::error::{Error, Result};
use crate::export::json::{SnapshotWriter, Stacks, Style};

/// Reads everything but the allocations.
pub fn read(path: &Path) -> Result<Snapshot> {
    let mut reader = serde_json::Deserializer::from_reader(open(path)?);
    let Light(snapshot) = Light::deserialize(&mut reader)
        .map_err(|error| other_version(path).unwrap_or_else(|| unreadable(path, &error)))?;
    reader.end().map_err(|error| unreadable(path, &error))?;
    if snapshot.schema_version != SCHEMA_VERSION {
        return Err(unknown_version(path, snapshot.schema_version.into()));
    }
    if let Some(why) = contradiction(&snapshot) {
        return Err(no_snapshot(path, why));
    }
    Ok(snapshot)
}

/// A stack whose frames are not there, as after an edit by hand.
fn contradiction(snapshot: &Snapshot) -> Option<String> {
    snapshot.processes.iter().find_map(|process| {
        let there = process.frames.len();
        let out = |stack: &&Stack| stack.frames.iter().any(|&frame| frame as usize >= there);
        let stack = process.stacks.iter().find(out)?;
        Some(format!("stack {} of process {} has frames that are not in its list", stack.id, process.pid))
    })
}

/// What another version has to be read with, where that is why a snapshot cannot be read.
fn other_version(path: &Path) -> Option<Error> {
    #[derive(Deserialize)]
    struct Version {
        schema_version: u64,
    }
    let mut reader = serde_json::Deserializer::from_reader(open(path).ok()?);
    let Version { schema_version } = Version::deserialize(&mut reader).ok()?;
    (schema_version != u64::from(SCHEMA_VERSION)).then(|| unknown_version(path, schema_version))
}

fn unknown_version(path: &Path, version: u64) -> Error {
    let who = if version > u64::from(SCHEMA_VERSION) { "a newer memscope" } else { "another memscope" };
    let why = format!("it was made by {who} (its schema_version is {version}, not {SCHEMA_VERSION})");
    Error::failed(path.display(), why).remedy("use the memscope-cli that wrote it")
}

fn open(path: &Path) -> Result<BufReader<File>> {
    let file = File::open(path).map_err(|error| Error::file(path, &error))?;
    Ok(BufReader::with_capacity(1 << 18, file))
}

fn unreadable(path: &Path, error: &serde_json::Error) -> Error {
    if error.is_io() {
        return Error::failed(path.display(), error);
    }
    no_snapshot(path, error)
}

fn no_snapshot(path: &Path, why: impl fmt::Display) -> Error {
    Error::failed(path.display(), format!("it is not a snapshot: {why}"))
        .remedy("give a snapshot JSON, a recording directory or a .trace file")
}

/// A snapshot whose allocations are left out.
struct Light(Snapshot);

impl<'de> Deserialize<'de> for Light {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        LightSnapshot::deserialize(deserializer).map(Light)
    }
}

#[derive(Deserialize)]
#[serde(remote = "Snapshot")]
struct LightSnapshot {
    schema_version: u32,
    generator: String,
    command: Vec<String>,
    complete: bool,
    incomplete_reason: Option<String>,
    incomplete_since: Option<u64>,
    #[serde(default)]
    unrecorded: Vec<Unrecorded>,
    #[serde(deserialize_with = "light_processes")]
    processes: Vec<Process>,
}

fn light_processes<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<Vec<Process>, D::Error> {
    #[derive(Deserialize)]
    struct Wrapped(#[serde(with = "LightProcess")] Process);
    Ok(Vec::<Wrapped>::deserialize(deserializer)?.into_iter().map(|Wrapped(process)| process).collect())
}

/// The fields of [`Process`], but that `allocations` is passed over.
#[derive(Deserialize)]
#[serde(remote = "Process")]
struct LightProcess {
    pid: u32,
    parent_pid: u32,
    exe: String,
    args: Vec<String>,
    start_time: u64,
    end_time: u64,
    end: End,
    exit_code: Option<i32>,
    signal: Option<i32>,
    complete: bool,
    incomplete_reason: Option<String>,
    incomplete_since: Option<u64>,
    stats: Stats,
    allocations_included: Included,
    #[serde(skip)]
    allocations: Vec<AllocationInfo>,
    frames: Vec<StackFrame>,
    stacks: Vec<Stack>,
    threads: Vec<Thread>,
    timeline: Vec<TimelinePoint>,
    lifetime_histogram: Vec<HistogramBucket>,
    #[serde(default)]
    variables: Vec<Variable>,
    modules: Vec<Module>,
    #[serde(default)]
    static_allocators: Vec<StaticAllocator>,
}

/// Writes the snapshot at `path` anew, with what is `wanted` of the allocations that it has.
///
/// `snapshot` is what [`read`] gave: the frames stand behind the allocations, so the file is read twice.
///
/// Errors of `out` are told by `failed`.
pub fn copy<W: Write>(
    path: &Path,
    snapshot: &mut Snapshot,
    listing: &ListingArgs,
    out: W,
    failed: impl Fn(&io::Error) -> Error,
) -> Result<()> {
    for process in &mut snapshot.processes {
        process.allocations_included =
            narrower(process.allocations_included, listing.allocations.map(Into::into));
    }
    let style = Style { inline_stacks: listing.inline_stacks };
    let writer = SnapshotWriter::new(out, snapshot, style).map_err(|error| failed(&error))?;
    let copier = RefCell::new(Copier { snapshot, writer, failed: None, at: 0 });
    let mut reader = serde_json::Deserializer::from_reader(open(path)?);
    let result = Field { name: "processes", inside: List(Entry(&copier)) }.deserialize(&mut reader);
    let Copier { writer, failed: output, at, .. } = copier.into_inner();
    if let Some(error) = output {
        return Err(failed(&error));
    }
    result.map_err(|error| unreadable(path, &error))?;
    if at != snapshot.processes.len() {
        return Err(Error::failed(path.display(), "it changed while it was read").remedy("try again"));
    }
    writer.finish().map_err(|error| failed(&error))?;
    Ok(())
}

/// What a snapshot has of single allocations, in words, where more are wanted than that.
pub fn lacks(snapshot: &Snapshot, listing: &ListingArgs) -> Option<&'static str> {
    let wanted = listing.allocations.map(Included::from)?;
    let lacking = |has: &Included| narrower(*has, Some(wanted)) != wanted;
    match snapshot.processes.iter().map(|process| process.allocations_included).find(lacking)? {
        Included::None => Some("no single allocations"),
        Included::Live | Included::All => Some("only the live allocations"),
    }
}

/// What can be listed of what is listed.
fn narrower(has: Included, wanted: Option<Included>) -> Included {
    match (has, wanted.unwrap_or(has)) {
        (Included::None, _) | (_, Included::None) => Included::None,
        (Included::Live, _) | (_, Included::Live) => Included::Live,
        (Included::All, Included::All) => Included::All,
    }
}

/// Where the second reading is, and what it writes.
struct Copier<'a, W> {
    snapshot: &'a Snapshot,
    writer: SnapshotWriter<W>,
    /// An error of the output, which is none of the JSON's.
    failed: Option<io::Error>,
    /// Index of the process.
    at: usize,
}

impl<W: Write> Copier<'_, W> {
    fn write(&mut self, write: impl FnOnce(&mut SnapshotWriter<W>, &Process) -> io::Result<()>) -> bool {
        let Some(process) = self.snapshot.processes.get(self.at) else { return false };
        match write(&mut self.writer, process) {
            Ok(()) => true,
            Err(error) => {
                self.failed = Some(error);
                false
            }
        }
    }
}

/// Goes through an object and looks into one of its fields.
struct Field<S> {
    name: &'static str,
    inside: S,
}

impl<'de, S: DeserializeSeed<'de, Value = ()> + Copy> DeserializeSeed<'de> for Field<S> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, S: DeserializeSeed<'de, Value = ()> + Copy> Visitor<'de> for Field<S> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object with {}", self.name)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<(), A::Error> {
        while let Some(name) = map.next_key::<String>()? {
            if name == self.name {
                map.next_value_seed(self.inside)?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

/// Goes through a list.
#[derive(Clone, Copy)]
struct List<S>(S);

impl<'de, S: DeserializeSeed<'de, Value = ()> + Copy> DeserializeSeed<'de> for List<S> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, S: DeserializeSeed<'de, Value = ()> + Copy> Visitor<'de> for List<S> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> std::result::Result<(), A::Error> {
        while list.next_element_seed(self.0)?.is_some() {}
        Ok(())
    }
}

/// One process: its beginning, its allocations, its end.
struct Entry<'a, 'b, W>(&'a RefCell<Copier<'b, W>>);

impl<W> Clone for Entry<'_, '_, W> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<W> Copy for Entry<'_, '_, W> {}

impl<'de, W: Write> DeserializeSeed<'de> for Entry<'_, '_, W> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<(), D::Error> {
        let stopped = || de::Error::custom("the output failed");
        let snapshot = self.0.borrow().snapshot;
        let at = self.0.borrow().at;
        let process = snapshot.processes.get(at).ok_or_else(stopped)?;
        if !self.0.borrow_mut().write(SnapshotWriter::begin_process) {
            return Err(stopped());
        }
        let stacks = Stacks::of(process);
        let row = RowOf { copier: self.0, stacks: &stacks };
        Field { name: "allocations", inside: List(row) }.deserialize(deserializer)?;
        let mut copier = self.0.borrow_mut();
        if !copier.write(SnapshotWriter::end_process) {
            return Err(stopped());
        }
        copier.at += 1;
        Ok(())
    }
}

/// One allocation.
struct RowOf<'a, 'b, W> {
    copier: &'a RefCell<Copier<'b, W>>,
    stacks: &'a Stacks<'a>,
}

impl<W> Clone for RowOf<'_, '_, W> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<W> Copy for RowOf<'_, '_, W> {}

impl<'de, W: Write> DeserializeSeed<'de> for RowOf<'_, '_, W> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<(), D::Error> {
        let allocation = AllocationInfo::deserialize(deserializer)?;
        let written = self.copier.borrow_mut().write(|writer, process| {
            let listed = match process.allocations_included {
                Included::All => true,
                Included::Live => allocation.is_leaked || allocation.timestamp_dealloc.is_none(),
                Included::None => false,
            };
            if listed { writer.allocation(&allocation, self.stacks) } else { Ok(()) }
        });
        if written { Ok(()) } else { Err(de::Error::custom("the output failed")) }
    }
}
