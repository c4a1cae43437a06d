//! Writing what a recording says into files.
//!
//! Process images are read one after the other. The JSON takes each at once, so that only one process
//! is held at a time; the HTML report needs all of them, but no single allocations.

pub mod atomic;
mod body;

use std::cell::Cell;
use std::path::Path;

use memscope_shared::analysis::{Recorded, Recording};
use memscope_shared::model::{Process, SCHEMA_VERSION, Snapshot, Unrecorded};

pub use memscope_report::json;

use self::body::Body;
use self::json::Style;
use crate::args::{Listed, ListingArgs};
use crate::error::{Error, Result};
use crate::input::traces::{Image, Reader, wanted};
use crate::input::{self, Input};
use crate::output;
use crate::progress::Progress;
use crate::report::{format, html};

/// Files without names that are listed one by one.
const MOST_UNRESOLVED: usize = 5;

/// What to make of a recording.
#[derive(Clone, Debug, Default)]
pub struct Plan<'a> {
    /// Where the snapshot JSON goes.
    pub json: Option<&'a Path>,
    /// Where the HTML report goes.
    pub html: Option<&'a Path>,
    /// What the JSON says of single allocations.
    pub listing: ListingArgs,
    /// Keep the snapshot with all its stacks, for another report.
    pub keep: bool,
    /// Show nothing on the way.
    pub quiet: bool,
}

/// What was found on the way.
#[derive(Debug, Default)]
pub struct Done {
    /// The snapshot: no single allocations, and stacks only where they were to be kept.
    pub snapshot: Snapshot,
    /// Lines for the user.
    pub remarks: Vec<String>,
}

/// Carries the plan out.
pub fn export(input: Input, plan: &Plan) -> Result<Done> {
    let done = match input {
        Input::Json(path) => from_json(&path, plan)?,
        Input::Traces(recording) => from_traces(recording, plan)?,
    };
    if let Some(path) = plan.html {
        let failed = |error: &std::io::Error| Error::file(path, error);
        atomic::write(path, |out| html::write(&done.snapshot, out).map_err(|error| failed(&error)))?;
    }
    Ok(done)
}

fn from_json(path: &Path, plan: &Plan) -> Result<Done> {
    let mut snapshot = input::json::read(path)?;
    let mut remarks = Vec::new();
    if let Some(target) = plan.json {
        remarks.extend(input::json::lacks(&snapshot, &plan.listing).map(|has| {
            format!(
                "{} lists {has}, and {} no more than that: analyze the recording itself for others",
                path.display(),
                target.display()
            )
        }));
        let failed = |error: &std::io::Error| Error::file(target, error);
        atomic::write(target, |out| input::json::copy(path, &mut snapshot, &plan.listing, out, failed))?;
    }
    Ok(Done { snapshot, remarks })
}

fn from_traces(recording: Recording, plan: &Plan) -> Result<Done> {
    let Recording { traces, problems, unrecorded } = recording;
    let command = command_of(&traces);
    let mut maker = Maker::new(plan, command, unrecorded);
    for (_, problem) in problems {
        maker.problem(&input::unreadable_trace(&problem));
    }
    maker.read_all(&traces)?;
    maker.finish()
}

/// Makes a snapshot out of traces.
struct Maker<'a> {
    plan: &'a Plan<'a>,
    body: Option<Body<'a>>,
    done: Done,
    /// What was run.
    command: Vec<String>,
    /// Why traces are missing from the snapshot.
    missing: Vec<String>,
    /// Programs that could not be recorded.
    unrecorded: Vec<Unrecorded>,
}

impl<'a> Maker<'a> {
    fn new(plan: &'a Plan<'a>, command: Vec<String>, unrecorded: Vec<Unrecorded>) -> Self {
        let style = Style { inline_stacks: plan.listing.inline_stacks };
        let body = plan.json.map(|path| Body::new(path, style));
        Self { plan, body, done: Done::default(), command, missing: Vec::new(), unrecorded }
    }

    /// A trace, or a part of one, cannot be had.
    fn problem(&mut self, error: &Error) {
        output::say_error(error);
        self.missing.push(error.reason());
    }

    fn read_all(&mut self, traces: &[Recorded]) -> Result<()> {
        let mut bar = Progress::new(self.plan.quiet);
        let sizes: Vec<u64> = traces.iter().map(|recorded| size(&recorded.path)).collect();
        bar.begin("reading the recording", sizes.iter().sum());
        // The bar hears of parts of the trace that is being read: what was before it, and its size.
        let position = Cell::new((0, 0));
        let mut progress = |part: f64| {
            let (before, size) = position.get();
            bar.set(before + (size as f64 * part) as u64);
        };
        let listed =
            if self.plan.json.is_some() { self.plan.listing.allocations } else { Some(Listed::None) };
        let temp_dir = self.plan.json.map(|path| atomic::directory_of(path).to_owned());
        let mut reader = Reader::new(wanted(listed), temp_dir, &mut progress);
        for (recorded, size) in traces.iter().zip(sizes) {
            let (before, last) = position.get();
            position.set((before + last, size));
            match reader.read(recorded) {
                Ok(image) => self.take(image, traces.len() == 1 && self.missing.is_empty())?,
                Err(error) if traces.len() == 1 => return Err(error),
                Err(error) => self.problem(&error),
            }
        }
        let unresolved: Vec<_> = reader.unresolved().collect();
        let named = unresolved.iter().take(MOST_UNRESOLVED);
        let line = |(path, why): &(&Path, &str)| format!("no names from {}: {why}", path.display());
        self.done.remarks.extend(named.map(line));
        if let Some(more) = unresolved.len().checked_sub(MOST_UNRESOLVED).filter(|more| *more > 0) {
            self.done
                .remarks
                .push(format!("no names from {} either", format::counted(more as u64, "other file")));
        }
        Ok(())
    }

    fn take(&mut self, image: Image, alone: bool) -> Result<()> {
        let Image { mut process, allocations, notes } = image;
        self.done.remarks.extend(notes);
        if let Some(body) = &mut self.body {
            // The only process needs no place to wait for its snapshot's first lines.
            if alone {
                let head = head(self.command.clone(), vec![outline(&process)], self.unrecorded.clone());
                body.write_whole(&head, &process, &allocations)?;
            } else {
                body.add(&process, &allocations)?;
            }
        }
        if self.plan.html.is_none() && !self.plan.keep {
            process = outline(&process);
        }
        self.done.snapshot.processes.push(process);
        Ok(())
    }

    fn finish(self) -> Result<Done> {
        let Self { body, mut done, command, missing, unrecorded, .. } = self;
        if done.snapshot.processes.is_empty() {
            let why = missing.into_iter().next().unwrap_or_else(|| "it has no process".to_owned());
            return Err(Error::failed("the recording cannot be read", why));
        }
        done.snapshot = head(command, std::mem::take(&mut done.snapshot.processes), unrecorded);
        note_missing(&mut done.snapshot, missing);
        if let Some(body) = body {
            body.finish(&done.snapshot)?;
        }
        Ok(done)
    }
}

/// What the user typed, where `run` recorded it; else what the first process was started with.
fn command_of(traces: &[Recorded]) -> Vec<String> {
    let typed = traces.iter().map(|recorded| &recorded.process.command).find(|words| !words.is_empty());
    let words = typed.or_else(|| traces.first().map(|first| &first.process.args));
    words.into_iter().flatten().map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

fn size(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.len())
}

/// What a summary needs of a process.
fn outline(process: &Process) -> Process {
    Process {
        pid: process.pid,
        parent_pid: process.parent_pid,
        exe: process.exe.clone(),
        args: process.args.clone(),
        start_time: process.start_time,
        end_time: process.end_time,
        end: process.end,
        exit_code: process.exit_code,
        signal: process.signal,
        complete: process.complete,
        incomplete_reason: process.incomplete_reason.clone(),
        incomplete_since: process.incomplete_since,
        stats: process.stats,
        allocations_included: process.allocations_included,
        ..Process::default()
    }
}

/// A snapshot of these processes: it is complete where all of them are.
fn head(command: Vec<String>, processes: Vec<Process>, unrecorded: Vec<Unrecorded>) -> Snapshot {
    let incomplete: Vec<&Process> = processes.iter().filter(|process| !process.complete).collect();
    let reason = match incomplete[..] {
        [] => None,
        [only] if processes.len() == 1 => only.incomplete_reason.clone(),
        [first, ..] => {
            let why = first.incomplete_reason.as_deref().unwrap_or("events were lost");
            Some(format!("{} of {} processes, first {}: {why}", incomplete.len(), processes.len(), first.pid))
        }
    };
    Snapshot {
        schema_version: SCHEMA_VERSION,
        generator: concat!("memscope-cli ", env!("CARGO_PKG_VERSION")).to_owned(),
        command,
        complete: incomplete.is_empty(),
        incomplete_reason: reason,
        incomplete_since: incomplete.iter().filter_map(|process| process.incomplete_since).min(),
        unrecorded,
        processes,
    }
}

/// Traces that are not there at all make it incomplete, too.
fn note_missing(snapshot: &mut Snapshot, missing: Vec<String>) {
    let Some(first) = missing.first() else { return };
    let more = if missing.len() > 1 { format!(" (and {} more)", missing.len() - 1) } else { String::new() };
    let why = format!("a trace is missing: {first}{more}");
    snapshot.complete = false;
    snapshot.incomplete_reason = Some(match snapshot.incomplete_reason.take() {
        Some(before) => format!("{before}; {why}"),
        None => why,
    });
}

#[cfg(test)]
pub mod tests;
