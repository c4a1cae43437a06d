//! A recording: the traces of one directory, or a single trace.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::error::Error;
use super::process::start_of;
use super::trace_source::TraceSource;
use super::unrecorded;
use crate::model::Unrecorded;
use crate::trace::{Ending, Process, TraceError, TraceFile, adopt_drafts, complete};

/// One trace of a recording.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// The trace.
    pub path: PathBuf,
    /// The process image that it is of.
    pub process: Process,
    /// It still runs, or may: the trace is not complete.
    pub running: bool,
    /// Its start, as its analysis has it.
    start: u64,
    /// The number of the image within its process.
    image: u64,
}

impl Recorded {
    /// Whether the process image still runs. One that has ended since the recording was opened gets its trace completed.
    #[must_use]
    pub fn still_runs(&self) -> bool {
        self.running && matches!(complete(&self.path, &Ending::default()), Err(TraceError::Running(..)))
    }
}

/// The traces of a recording.
#[derive(Debug, Default)]
pub struct Recording {
    /// The process images, in order of start; the first is the command itself.
    pub traces: Vec<Recorded>,
    /// Traces that could not be read or completed: which, and why.
    pub problems: Vec<(PathBuf, TraceError)>,
    /// Programs that were started but could not be recorded.
    pub unrecorded: Vec<Unrecorded>,
}

impl Recording {
    /// Opens the recording at `path`, a directory or a trace. Traces of processes that have ended are
    /// completed first.
    ///
    /// # Errors
    ///
    /// There is no recording, or no trace of it can be read.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let is_dir = fs::metadata(path).map_err(|error| Error::Directory(path.to_owned(), error))?.is_dir();
        if is_dir {
            adopt_drafts(path);
        }
        let paths = if is_dir {
            traces_in(path).map_err(|error| Error::Directory(path.to_owned(), error))?
        } else {
            vec![path.to_owned()]
        };
        if paths.is_empty() {
            return Err(Error::NoRecording(path.to_owned()));
        }
        let mut recording = Self::default();
        for path in paths.into_iter().filter(|path| !is_just_made(path)) {
            recording.add(path);
        }
        // Completion may have made some of them.
        if is_dir {
            recording.unrecorded = unrecorded::notes_in(path);
        }
        if recording.traces.is_empty() && !recording.problems.is_empty() {
            return Err(recording.problems.swap_remove(0).1.into());
        }
        recording.sort();
        Ok(recording)
    }

    fn add(&mut self, path: PathBuf) {
        let (mut running, mut problem) = (false, None);
        match complete(&path, &Ending::default()) {
            Ok(_) => {}
            Err(TraceError::Running(..)) => running = true,
            Err(error @ TraceError::Hidden(..)) => (running, problem) = (true, Some(error)),
            // It can still be read, if it is only that it cannot be written; the analysis says what it lacks.
            Err(error @ TraceError::Io { .. }) => problem = Some(error),
            Err(error) => return self.problems.push((path, error)),
        }
        match recorded(path.clone(), running) {
            Ok((recorded, is_complete)) => {
                self.traces.push(recorded);
                self.problems.extend(problem.filter(|_| !is_complete).map(|error| (path, error)));
            }
            Err(error) => self.problems.push((path, error)),
        }
    }

    /// By start; but first the one whose parent is not in the recording.
    fn sort(&mut self) {
        self.traces.sort_by(|a, b| {
            let key = |r: &Recorded| (r.start, r.process.pid, r.image);
            key(a).cmp(&key(b)).then_with(|| a.path.cmp(&b.path))
        });
        let root = self.traces.iter().position(|recorded| self.is_root(recorded));
        self.traces[..root.map_or(0, |at| at + 1)].rotate_right(1.min(root.unwrap_or(0)));
    }

    fn is_root(&self, recorded: &Recorded) -> bool {
        let process = &recorded.process;
        let is_parent = |other: &Recorded| {
            let known = process.parent_start_ticks != 0;
            other.process.pid == process.parent_pid
                && (!known || other.process.start_ticks == process.parent_start_ticks)
        };
        !process.execed && !self.traces.iter().any(is_parent)
    }
}

/// The files in `dir` that are named as traces are: `PID-N.trace`.
fn traces_in(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if numbers(&path).is_some() {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// Whether a process that runs has made this trace but has not yet written anything into it.
fn is_just_made(path: &Path) -> bool {
    let pid = numbers(path).map(|numbers| numbers.0);
    let runs = |pid: u32| Path::new("/proc").join(pid.to_string()).exists();
    pid.is_some_and(runs) && fs::metadata(path).is_ok_and(|metadata| metadata.len() == 0)
}

/// PID and N of a trace's name.
fn numbers(path: &Path) -> Option<(u32, u64)> {
    let (pid, image) = path.file_name()?.to_str()?.strip_suffix(".trace")?.split_once('-')?;
    Some((pid.parse().ok()?, image.parse().ok()?))
}

/// What is to be known of a trace, and whether it is complete.
fn recorded(path: PathBuf, running: bool) -> Result<(Recorded, bool), TraceError> {
    let trace = TraceFile::open(&path)?;
    let process = trace.process().cloned().ok_or_else(|| TraceError::NoProcess(path.clone()))?;
    let start = start_of(&trace, &TraceSource::new(&trace), &trace.clock());
    let image = numbers(&path).map_or(0, |numbers| numbers.1);
    Ok((Recorded { path, process, running, start, image }, trace.end().is_some()))
}

#[cfg(test)]
mod tests;
