//! Writing what a recording says into files.

pub mod atomic;
pub mod json;

use std::path::Path;

use crate::args::ListingArgs;
use crate::error::{Error, Result};
use crate::input::Recording;
use crate::report::html;

/// What to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The snapshot JSON.
    Json,
    /// The HTML report.
    Html,
}

/// Writes a recording into the file at `path`.
pub fn write(recording: &mut Recording, kind: Kind, path: &Path, listing: &ListingArgs) -> Result<()> {
    let failed = |error: &std::io::Error| Error::file(path, error);
    atomic::write(path, |out| match kind {
        Kind::Json => recording.write_json(out, listing, failed),
        Kind::Html => html::write(recording.snapshot(), out).map_err(|error| failed(&error)),
    })
}

#[cfg(test)]
pub mod tests;
