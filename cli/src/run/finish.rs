//! After the program: completing what it left, exporting it, saying what was done.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use memscope_shared::trace::complete::{self, complete};
use memscope_shared::trace::read::TraceError;

use super::Ended;
use super::signals::Ending;
use crate::args::RunArgs;
use crate::embed::Library;
use crate::error::Result;
use crate::exit_codes::ExitCode;
use crate::output::say;

/// Makes of the recording what was asked for; gives the status to end with.
pub fn finish(args: &RunArgs, ended: &Ended, library: Library) -> Result<ExitCode> {
    let mut running = Vec::new();
    for trace in traces(ended.directory.path()) {
        match complete(&trace, &ending_of(&trace, ended)) {
            Err(TraceError::Running(_, pid)) => running.push(pid),
            Err(error) => say(format_args!("{error}")),
            Ok(_) => {}
        }
    }
    ended.directory.release(!running.is_empty());
    if running.is_empty() {
        library.discard();
    }
    if !args.quiet {
        say(ended.ending);
    }
    Ok(status(ended.ending))
}

/// The traces of a recording.
fn traces(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut traces: Vec<PathBuf> =
        entries.filter(|path| path.extension() == Some(OsStr::new("trace"))).collect();
    traces.sort();
    traces
}

/// What we know of how a trace's process ended: only of the one that we waited for.
fn ending_of(trace: &Path, ended: &Ended) -> complete::Ending {
    let ours = format!("{}-", ended.pid);
    if !trace.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(ours.as_bytes())) {
        return complete::Ending::default();
    }
    let (exit_code, signal) = match ended.ending {
        Ending::Exited(status) => (Some(status), None),
        Ending::Killed(signal) => (None, Some(signal)),
    };
    complete::Ending { exit_code, signal, seen_ns: Some(ended.seen_ns) }
}

fn status(ending: Ending) -> ExitCode {
    match ending {
        Ending::Exited(status) => ExitCode::Program(status as u8),
        Ending::Killed(signal) => ExitCode::Killed(signal as u8),
    }
}
