//! The snapshot JSON, written as it comes: no list of allocations is ever held in memory.
//!
//! Each element of a list stands on a line of its own, so that the file can be looked at and compared.

use std::io::{self, Read, Write};

use memscope_shared::model::{AllocationInfo, FreedBy, Process, Snapshot, Stack, StackFrame};
use serde::Serialize;
use serde::ser::{SerializeSeq, Serializer};

/// How single allocations are written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Style {
    /// Fill each allocation's `stack_trace`.
    pub inline_stacks: bool,
}

/// Writes one snapshot.
///
/// ```text
/// new -> (begin_process -> allocation* -> end_process)* -> finish
/// ```
pub struct SnapshotWriter<W> {
    out: W,
    style: Style,
    /// The object or list that is open has an element already.
    comma: bool,
}

impl<W: Write> SnapshotWriter<W> {
    /// Writes everything of `snapshot` that stands before its processes.
    pub fn new(out: W, snapshot: &Snapshot, style: Style) -> io::Result<Self> {
        let mut writer = Self { out, style, comma: false };
        writer.out.write_all(b"{\n")?;
        writer.field("schema_version", &snapshot.schema_version)?;
        writer.field("generator", &snapshot.generator)?;
        writer.field("command", &snapshot.command)?;
        writer.field("complete", &snapshot.complete)?;
        writer.field("incomplete_reason", &snapshot.incomplete_reason)?;
        writer.field("incomplete_since", &snapshot.incomplete_since)?;
        writer.list("unrecorded", &snapshot.unrecorded)?;
        writer.open_list("processes")?;
        Ok(writer)
    }

    /// Begins behind everything that stands before the processes, to be put there by [`Self::processes_from`].
    pub const fn behind(out: W, style: Style) -> Self {
        Self { out, style, comma: false }
    }

    /// Writes processes that [`Self::behind`] has written.
    pub fn processes_from(&mut self, written: &mut impl Read) -> io::Result<()> {
        self.comma = true;
        io::copy(written, &mut self.out).map(drop)
    }

    /// What it has written to.
    pub fn into_inner(self) -> W {
        self.out
    }

    /// Writes what stands before the process's allocations.
    pub fn begin_process(&mut self, process: &Process) -> io::Result<()> {
        self.element()?;
        self.out.write_all(b"{\n")?;
        self.comma = false;
        self.field("pid", &process.pid)?;
        self.field("parent_pid", &process.parent_pid)?;
        self.field("exe", &process.exe)?;
        self.field("args", &process.args)?;
        self.field("start_time", &process.start_time)?;
        self.field("end_time", &process.end_time)?;
        self.field("end", &process.end)?;
        self.field("exit_code", &process.exit_code)?;
        self.field("signal", &process.signal)?;
        self.field("complete", &process.complete)?;
        self.field("incomplete_reason", &process.incomplete_reason)?;
        self.field("incomplete_since", &process.incomplete_since)?;
        self.field("stats", &process.stats)?;
        self.field("allocations_included", &process.allocations_included)?;
        self.open_list("allocations")
    }

    /// Writes one allocation; `stacks` finds its stack in the process.
    pub fn allocation(&mut self, allocation: &AllocationInfo, stacks: &Stacks<'_>) -> io::Result<()> {
        let stack_trace = if self.style.inline_stacks { stacks.trace(allocation.stack_id) } else { None };
        self.item(&Row::new(allocation, stack_trace))
    }

    /// Writes what stands behind the process's allocations.
    pub fn end_process(&mut self, process: &Process) -> io::Result<()> {
        self.close_list()?;
        self.list("frames", &process.frames)?;
        self.list("stacks", &process.stacks)?;
        self.list("threads", &process.threads)?;
        self.list("timeline", &process.timeline)?;
        self.list("lifetime_histogram", &process.lifetime_histogram)?;
        self.list("variables", &process.variables)?;
        self.list("modules", &process.modules)?;
        self.list("static_allocators", &process.static_allocators)?;
        self.out.write_all(b"\n}")?;
        self.comma = true;
        Ok(())
    }

    /// Writes the end and gives the writer back.
    pub fn finish(mut self) -> io::Result<W> {
        self.close_list()?;
        self.out.write_all(b"\n}\n")?;
        Ok(self.out)
    }

    fn field(&mut self, name: &str, value: &impl Serialize) -> io::Result<()> {
        self.name(name)?;
        self.value(value)
    }

    fn list(&mut self, name: &str, items: &[impl Serialize]) -> io::Result<()> {
        self.open_list(name)?;
        for item in items {
            self.item(item)?;
        }
        self.close_list()
    }

    fn open_list(&mut self, name: &str) -> io::Result<()> {
        self.name(name)?;
        self.comma = false;
        self.out.write_all(b"[")
    }

    fn close_list(&mut self) -> io::Result<()> {
        self.comma = true;
        self.out.write_all(b"]")
    }

    fn name(&mut self, name: &str) -> io::Result<()> {
        if self.comma {
            self.out.write_all(b",\n")?;
        }
        self.comma = true;
        write!(self.out, "\"{name}\": ")
    }

    fn item(&mut self, item: &impl Serialize) -> io::Result<()> {
        self.element()?;
        self.value(item)
    }

    fn element(&mut self) -> io::Result<()> {
        self.out.write_all(if self.comma { b",\n" } else { b"\n" })?;
        self.comma = true;
        Ok(())
    }

    fn value(&mut self, value: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, value).map_err(io::Error::from)
    }
}

/// The stacks of a process, to be found by their ids.
pub struct Stacks<'a> {
    stacks: Vec<&'a Stack>,
    frames: &'a [StackFrame],
}

impl<'a> Stacks<'a> {
    /// Those of `process`.
    pub fn of(process: &'a Process) -> Self {
        let mut stacks: Vec<&Stack> = process.stacks.iter().collect();
        stacks.sort_unstable_by_key(|stack| stack.id);
        Self { stacks, frames: &process.frames }
    }

    fn trace(&self, id: Option<u64>) -> Option<Trace<'a>> {
        let id = id?;
        let at = self.stacks.binary_search_by_key(&id, |stack| stack.id).ok()?;
        Some(Trace { stack: &self.stacks[at].frames, frames: self.frames })
    }
}

/// A stack's frames, written out where they are needed.
#[derive(Clone, Copy)]
struct Trace<'a> {
    stack: &'a [u32],
    frames: &'a [StackFrame],
}

impl Serialize for Trace<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // A snapshot from elsewhere may name frames that it doesn't have.
        let frames = self.stack.iter().filter_map(|at| self.frames.get(*at as usize));
        let mut list = serializer.serialize_seq(None)?;
        for frame in frames {
            list.serialize_element(frame)?;
        }
        list.end()
    }
}

/// An allocation as it is written: [`AllocationInfo`] with a stack that lies elsewhere.
#[derive(Serialize)]
struct Row<'a> {
    ptr: usize,
    size: usize,
    timestamp_alloc: u64,
    timestamp_dealloc: Option<u64>,
    var_name: Option<&'a str>,
    type_name: Option<&'a str>,
    scope_name: Option<&'a str>,
    stack_trace: Option<Frames<'a>>,
    borrow_count: usize,
    is_leaked: bool,
    lifetime_ms: Option<u64>,
    lifetime_ns: u64,
    freed_by: FreedBy,
    thread_id: u64,
    dealloc_thread_id: Option<u64>,
    stack_id: Option<u64>,
}

/// Frames by number, or as they came with the allocation.
#[derive(Serialize)]
#[serde(untagged)]
enum Frames<'a> {
    Numbered(Trace<'a>),
    Given(&'a [StackFrame]),
}

impl<'a> Row<'a> {
    fn new(from: &'a AllocationInfo, trace: Option<Trace<'a>>) -> Self {
        let given = || from.stack_trace.as_deref().map(Frames::Given);
        Self {
            ptr: from.ptr,
            size: from.size,
            timestamp_alloc: from.timestamp_alloc,
            timestamp_dealloc: from.timestamp_dealloc,
            var_name: from.var_name.as_deref(),
            type_name: from.type_name.as_deref(),
            scope_name: from.scope_name.as_deref(),
            stack_trace: trace.map(Frames::Numbered).or_else(given),
            borrow_count: from.borrow_count,
            is_leaked: from.is_leaked,
            lifetime_ms: from.lifetime_ms,
            lifetime_ns: from.lifetime_ns,
            freed_by: from.freed_by,
            thread_id: from.thread_id,
            dealloc_thread_id: from.dealloc_thread_id,
            stack_id: from.stack_id,
        }
    }
}
