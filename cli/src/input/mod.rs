//! Where a report's numbers come from: a snapshot JSON, a recording directory, or one trace.

mod json;

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use memscope_shared::model::Snapshot;

use crate::args::ListingArgs;
use crate::error::{Error, Result};

/// What was given to be read.
#[derive(Debug)]
pub enum Input {
    /// A snapshot JSON.
    Json(PathBuf),
}

impl Input {
    /// Looks at what `path` is.
    pub fn find(path: &Path) -> Result<Self> {
        let mut head = [0; 64];
        let length = File::open(path)
            .and_then(|mut file| file.read(&mut head))
            .map_err(|error| Error::file(path, &error))?;
        if head[..length].iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'{') {
            return Ok(Self::Json(path.to_owned()));
        }
        Err(Error::failed(path.display(), "it is no snapshot"))
    }

    /// Reads it.
    pub fn open(self) -> Result<Recording> {
        match self {
            Self::Json(path) => Ok(Recording { snapshot: json::read(&path)?, path }),
        }
    }
}

/// A recording that has been read.
#[derive(Debug)]
pub struct Recording {
    snapshot: Snapshot,
    path: PathBuf,
}

impl Recording {
    /// Everything but single allocations.
    pub const fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Writes the snapshot JSON.
    pub fn write_json<W: Write>(
        &mut self,
        out: &mut BufWriter<W>,
        listing: &ListingArgs,
        failed: impl Fn(&io::Error) -> Error,
    ) -> Result<()> {
        json::copy(&self.path, &mut self.snapshot, listing, out, failed)
    }
}

#[cfg(test)]
mod tests;
