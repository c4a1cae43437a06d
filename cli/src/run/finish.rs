//! After the program: completing what it left, exporting it, saying what was done.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use memscope_shared::model::{End, Snapshot, Unrecorded};
use memscope_shared::trace::{
    self, EndKind, ImageState, Outcome, TraceError, TraceFile, adopt_drafts, complete, image_state,
};

use super::Ended;
use super::proc;
use super::signals::Ending;
use crate::args::RunArgs;
use crate::embed::Library;
use crate::error::{Error, Result};
use crate::exit_codes::ExitCode;
use crate::export::{Done, Plan, export};
use crate::handoff;
use crate::input::{Input, unreadable_trace};
use crate::output::{say, say_error};
use crate::report::{format, summary};

/// The snapshot's name in the recording.
const SNAPSHOT: &str = "snapshot.json";
/// The report's.
const REPORT: &str = "report.html";

/// Makes of the recording what was asked for; gives the status to end with.
pub fn finish(args: &RunArgs, ended: &Ended, library: Library) -> ExitCode {
    let mut running = complete_traces(ended, args.export.json() || args.export.html());
    ended.spools.remove_orphans();
    ended.directory.release(!running.is_empty());
    let exported = make_exports(args, ended);
    if let Ok(Some(done)) = &exported {
        running.retain(|pid| !is_whole(*pid, &done.snapshot));
        running.extend(left_out(ended, &done.snapshot));
        running.sort_unstable();
        running.dedup();
    }
    if running.is_empty() {
        ended.directory.release(false);
        library.discard();
    }
    if let Err(error) = &exported {
        say_error(error);
    }
    if !args.quiet {
        say_what_was_done(args, ended, &running, exported.as_ref().ok());
    }
    match status(ended.ending) {
        // Otherwise the program's own failure matters more.
        ExitCode::Program(0) if exported.is_err() => ExitCode::Failed,
        code => code,
    }
}

/// Completes the traces of all processes that have ended; gives those that have not. `will_be_read`: the recording is exported.
fn complete_traces(ended: &Ended, will_be_read: bool) -> Vec<u32> {
    let mut running = Vec::new();
    adopt_drafts(ended.directory.path());
    for trace in traces(ended.directory.path()) {
        match complete(&trace, &ending_of(&trace, ended)) {
            Err(TraceError::Running(_, pid)) => running.push(pid),
            Ok(Outcome::Completed { end, .. }) if end.kind == EndKind::Exec => {
                running.extend(lives_on(&trace))
            }
            // What else is wrong is said when it is read.
            Err(error @ TraceError::Io { .. }) if !will_be_read => say_error(&unreadable_trace(&error)),
            _ => {}
        }
    }
    // One that has just been started may have no trace yet.
    running.extend(proc::recording_into(ended.directory.path(), &handoff::folder(ended.directory.path())));
    running.sort_unstable();
    running.dedup();
    running
}

/// The process whose image in this trace was replaced, if it lives: the next image may have no trace yet.
fn lives_on(trace: &Path) -> Option<u32> {
    let trace = TraceFile::open(trace).ok()?;
    let process = trace.process()?;
    // In another pid namespace it has a number that says nothing here.
    let ours = !is_in_other_namespace(process);
    (ours && image_state(process, trace.path().parent()) == ImageState::Replaced).then_some(process.pid)
}

/// Whether a process that was running has ended since, and all of it is in the snapshot.
fn is_whole(pid: u32, snapshot: &Snapshot) -> bool {
    let mut ends = snapshot.processes.iter().filter(|process| process.pid == pid).map(|process| process.end);
    let last = ends.next_back();
    last.is_some_and(|end| !matches!(end, End::Running | End::Exec))
}

/// The processes that became another program, or began, while the snapshot was being made: it lacks an image of theirs.
fn left_out(ended: &Ended, snapshot: &Snapshot) -> Vec<u32> {
    let images = |pid: u32| snapshot.processes.iter().filter(move |process| process.pid == pid);
    let replaced = |pid: &u32| images(*pid).next_back().is_some_and(|process| process.end == End::Exec);
    let mut pids: Vec<u32> = snapshot.processes.iter().map(|process| process.pid).filter(replaced).collect();
    pids.retain(|pid| Path::new("/proc").join(pid.to_string()).exists());
    if !pids.is_empty() {
        // Of another pid namespace, where the number is somebody else's here.
        let elsewhere = |trace: &PathBuf| {
            let trace = TraceFile::open(trace).ok()?;
            trace.process().filter(|process| is_in_other_namespace(process)).map(|process| process.pid)
        };
        let elsewhere: Vec<u32> = traces(ended.directory.path()).iter().filter_map(elsewhere).collect();
        pids.retain(|pid| !elsewhere.contains(pid));
    }
    for trace in traces(ended.directory.path()) {
        let name = trace.file_stem().and_then(OsStr::to_str).and_then(|name| name.split_once('-'));
        let Some((pid, image)) = name.and_then(|(pid, n)| Some((pid.parse().ok()?, n.parse().ok()?))) else {
            continue;
        };
        // One that was there and cannot be read, is complete or fails to be.
        let new = || match complete(&trace, &ending_of(&trace, ended)) {
            Ok(Outcome::Completed { .. }) => Some(pid),
            Err(TraceError::Running(_, pid)) => Some(pid),
            _ => None,
        };
        if images(pid).count() <= image {
            pids.extend(new());
        }
    }
    pids
}

/// The traces of a recording.
fn traces(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut traces: Vec<PathBuf> =
        entries.filter(|path| path.extension() == Some(OsStr::new("trace"))).collect();
    traces.sort();
    traces
}

/// What we know of how a trace's process ended: we waited for one, and may have seen the ends of others.
fn ending_of(trace: &Path, ended: &Ended) -> trace::Ending {
    let process = TraceFile::open(trace).ok().and_then(|trace| trace.process().cloned());
    // A process of another pid namespace than ours may have any number.
    let Some(process) = process.filter(|process| !is_in_other_namespace(process)) else {
        return trace::Ending::default();
    };
    if i64::from(process.pid) != i64::from(ended.pid) {
        return ended.others.of(&process);
    }
    let (exit_code, signal) = match ended.ending {
        Ending::Exited(status) => (Some(status), None),
        Ending::Killed(signal) => (None, Some(signal)),
    };
    trace::Ending { exit_code, signal, seen_ns: Some(ended.seen_ns) }
}

fn is_in_other_namespace(process: &trace::Process) -> bool {
    let ours = fs::metadata("/proc/self/ns/pid").map_or(0, |metadata| metadata.ino());
    ours != 0 && process.namespace != 0 && ours != process.namespace
}

fn make_exports(args: &RunArgs, ended: &Ended) -> Result<Option<Done>> {
    if !args.export.json() && !args.export.html() {
        return Ok(None);
    }
    let (json, html) = (ended.directory.path().join(SNAPSHOT), ended.directory.path().join(REPORT));
    let plan = Plan {
        json: args.export.json().then_some(json.as_path()),
        html: args.export.html().then_some(html.as_path()),
        listing: args.listing,
        keep: false,
        quiet: args.quiet,
    };
    if traces(ended.directory.path()).is_empty() {
        let (name, what) = (ended.directory.name().display(), "nothing was recorded");
        if ended.spools.are_orphaned() {
            return Err(Error::failed(name, "it was deleted while the program ran")
                .remedy("name a directory that stays with -o"));
        }
        return Err(match ended.ending {
            Ending::Killed(signal) => {
                Error::failed(name, format!("{what} before signal {signal} killed the program"))
                    .remedy("let it live longer, or see what it said at its start")
            }
            Ending::Exited(_) => Error::failed(name, what).remedy("see what the program said at its start"),
        });
    }
    export(Input::find(ended.directory.path())?, &plan).map(Some)
}

fn say_what_was_done(args: &RunArgs, ended: &Ended, running: &[u32], done: Option<&Option<Done>>) {
    if let Some(Some(done)) = done {
        done.remarks.iter().for_each(say);
        say_totals(&done.snapshot);
        say_unrecorded(&done.snapshot.unrecorded);
    }
    if !running.is_empty() {
        let names: Vec<String> = running.iter().map(|pid| proc::named(*pid)).collect();
        let directory = format::quoted(&ended.directory.name().to_string_lossy());
        say(format_args!(
            "still running: {} (`memscope-cli analyze {directory} report.html` later)",
            names.join(", ")
        ));
    }
    if ended.directory.path().exists() {
        say(format_args!("recording: {}", ended.directory.name().display()));
    }
    if done.is_some() {
        for (name, file, made) in
            [("snapshot", SNAPSHOT, args.export.json()), ("report", REPORT, args.export.html())]
        {
            if made {
                say(format_args!("{name}: {}", ended.directory.shown(file).display()));
            }
        }
    }
    say(ended.ending);
}

fn say_totals(snapshot: &Snapshot) {
    summary::line(snapshot).into_iter().for_each(say);
    if let (false, Some(why)) = (snapshot.complete, &snapshot.incomplete_reason) {
        say(format_args!("the recording is incomplete: {why}"));
    }
}

/// Names the first of the programs that could not be recorded.
fn say_unrecorded(programs: &[Unrecorded]) {
    let Some(first) = programs.first() else { return };
    let (name, why) = (format::file_name(&first.exe), &first.reason);
    let more = match programs.len() - 1 {
        0 => String::new(),
        more => format!(" (and {} more)", format::count(more as u64)),
    };
    say(format_args!("not recorded: {} ({name}): {why}{more}", first.pid));
}

fn status(ending: Ending) -> ExitCode {
    match ending {
        Ending::Exited(status) => ExitCode::Program(status as u8),
        Ending::Killed(signal) => ExitCode::Killed(signal as u8),
    }
}
