//! Where a report's numbers come from: a snapshot JSON, a recording directory, or one trace.

mod allocators;
pub mod json;
pub mod traces;

use std::fs::{self, File};
use std::io::ErrorKind;
use std::io::Read;
use std::path::{Path, PathBuf};

use memscope_shared::analysis::{self, Recording};
use memscope_shared::trace::TraceError;
use memscope_shared::trace::frame::{FILE_HEADER_BYTES, file_header};

use crate::error::{Error, Result, describe};
use crate::handoff;

/// What was given to be read.
#[derive(Debug)]
pub enum Input {
    /// A snapshot JSON.
    Json(PathBuf),
    /// The traces of a recording.
    Traces(Recording),
}

impl Input {
    /// Looks at what `path` is. Traces of processes that have ended are completed.
    pub fn find(path: &Path) -> Result<Self> {
        let metadata = fs::metadata(path).map_err(|error| Error::file(path, &error))?;
        if metadata.is_dir() {
            return Self::in_directory(path);
        }
        let mut head = Vec::new();
        let file = File::open(path).map_err(|error| Error::file(path, &error))?;
        file.take(64).read_to_end(&mut head).map_err(|error| Error::file(path, &error))?;
        if head.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'{') {
            return Ok(Self::Json(path.to_owned()));
        }
        if begins_as_a_trace(&head) {
            return Recording::open(path).map(Self::Traces).map_err(|error| unreadable(&error));
        }
        if head.trim_ascii_start().starts_with(b"<") {
            return Err(Error::failed(path.display(), "it is a page, which cannot be read again")
                .remedy("give the recording's directory or its snapshot.json"));
        }
        Err(Error::failed(path.display(), "it is neither a snapshot JSON nor a trace")
            .remedy("give one of these, or a recording directory"))
    }

    /// A recording that was moved without its traces may still have its snapshot.
    fn in_directory(path: &Path) -> Result<Self> {
        match Recording::open(path) {
            Ok(recording) => {
                if !recording.traces.iter().any(|recorded| recorded.running) {
                    handoff::remove(path);
                }
                Ok(Self::Traces(recording))
            }
            Err(analysis::Error::NoRecording(_)) if path.join("snapshot.json").is_file() => {
                Ok(Self::Json(path.join("snapshot.json")))
            }
            Err(error) => Err(unreadable(&error)),
        }
    }
}

/// Whether a file begins as a trace of any version does.
fn begins_as_a_trace(head: &[u8]) -> bool {
    let magic = &file_header()[..FILE_HEADER_BYTES.min(8)];
    head.starts_with(magic)
}

/// An error of the analysis, as ours.
pub fn unreadable(error: &analysis::Error) -> Error {
    match error {
        analysis::Error::Trace(error) => unreadable_trace(error),
        analysis::Error::TempFile(error) => {
            Error::failed("the allocations cannot be sorted in a temporary file", describe(error))
                .remedy("free some space, or list fewer with --allocations")
        }
        analysis::Error::Directory(path, error) => Error::file(path, error),
        analysis::Error::NoRecording(path) => Error::failed(path.display(), "there is no recording in it")
            .remedy("give the directory that run named"),
    }
}

/// The same of a single trace.
pub fn unreadable_trace(error: &TraceError) -> Error {
    match error {
        TraceError::Io { what, path, error } => {
            let failed = Error::failed(format!("cannot {what} {}", path.display()), describe(error));
            match error.kind() {
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                    failed.remedy("make room and analyze it again: what is missing waits in shared memory")
                }
                _ => failed,
            }
        }
        TraceError::NotATrace(path) => Error::failed(path.display(), "it is not a memscope trace"),
        TraceError::Version(path, version) => Error::failed(
            path.display(),
            format!("it has version {version} of the trace format, which is not known here"),
        )
        .remedy("use the memscope-cli that recorded it"),
        TraceError::NoProcess(path) => Error::failed(path.display(), "it was cut before its first record")
            .remedy("record again: nothing can be read from it"),
        TraceError::Running(path, pid) => {
            Error::failed(path.display(), format!("process {pid} still runs")).remedy("wait for its end")
        }
        TraceError::Hidden(path, pid) => Error::failed(
            path.display(),
            format!(
                "process {pid} is in another pid namespace, and may still run: its recording is left as it is"
            ),
        )
        .remedy("analyze it where that process can be seen: in its namespace, or in one above"),
    }
}

#[cfg(test)]
mod tests;
