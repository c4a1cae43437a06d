//! What can go wrong.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Result of what can go wrong.
pub type TrackingResult<T> = Result<T, TrackingError>;

/// What went wrong. Nothing is ever skipped because a lock is busy, so there is no error for that.
///
/// ```
/// use memscope_rs::{MemoryTracker, TrackingError};
///
/// let error = MemoryTracker::new().track_deallocation(0x1000).unwrap_err();
/// assert!(matches!(error, TrackingError::UnknownAddress(0x1000)));
/// assert_eq!(error.to_string(), "nothing live is tracked at 0x1000");
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum TrackingError {
    /// Nothing live is tracked at this address.
    UnknownAddress(usize),
    /// An export could not be written.
    Export {
        /// Where it was to go.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// What was asked for cannot be set up.
    Setup {
        /// What.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
}

impl TrackingError {
    pub(crate) fn export(path: &Path, source: io::Error) -> Self {
        Self::Export { path: path.to_owned(), source }
    }
}

impl fmt::Display for TrackingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownAddress(address) => write!(f, "nothing live is tracked at {address:#x}"),
            Self::Export { path, source } => write!(f, "cannot export to {}: {source}", path.display()),
            Self::Setup { what, source } => write!(f, "cannot {what}: {source}"),
        }
    }
}

impl std::error::Error for TrackingError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::UnknownAddress(_) => None,
            Self::Export { source, .. } | Self::Setup { source, .. } => Some(source),
        }
    }
}
