//! What can go wrong in an analysis.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::trace::TraceError;

/// Why there is no result. Its text is `what: why`.
#[derive(Debug)]
pub enum Error {
    /// The trace cannot be read.
    Trace(TraceError),
    /// A temporary file could not be written.
    TempFile(io::Error),
    /// A directory cannot be read.
    Directory(PathBuf, io::Error),
    /// A directory has no trace in it.
    NoRecording(PathBuf),
}

impl Error {
    /// The trace at `path` does not say which process it is of.
    #[must_use]
    pub fn no_process(path: &Path) -> Self {
        Self::Trace(TraceError::NoProcess(path.to_owned()))
    }
}

impl From<TraceError> for Error {
    fn from(error: TraceError) -> Self {
        Self::Trace(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Trace(error) => error.fmt(f),
            Self::TempFile(error) => {
                write!(f, "cannot sort the allocations in a temporary file: {error}")
            }
            Self::Directory(path, error) => write!(f, "cannot read {}: {error}", path.display()),
            Self::NoRecording(path) => {
                write!(f, "cannot read {}: there is no recording in it", path.display())
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Trace(error) => error.source(),
            Self::TempFile(error) | Self::Directory(_, error) => Some(error),
            Self::NoRecording(_) => None,
        }
    }
}
