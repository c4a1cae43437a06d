//! The snapshot JSON of several processes.
//!
//! What stands before the processes is only known when all are read: whether the recording is complete.
//! So they wait in a temporary file beside the snapshot's place, and are moved behind the first lines.

use std::fs::File;
use std::io::{self, BufWriter, Seek, Write};
use std::path::Path;

use memscope_shared::analysis::Allocations;
use memscope_shared::model::{Process, Snapshot};

use super::atomic;
use super::json::{SnapshotWriter, Stacks, Style};
use crate::error::{Error, Result};
use crate::input::traces::infos;

/// A snapshot JSON that is being made.
pub struct Body<'a> {
    path: &'a Path,
    style: Style,
    waiting: Option<SnapshotWriter<BufWriter<File>>>,
    /// It is written already.
    written: bool,
}

impl<'a> Body<'a> {
    /// One that will be at `path`.
    pub const fn new(path: &'a Path, style: Style) -> Self {
        Self { path, style, waiting: None, written: false }
    }

    /// Writes the snapshot of a single process.
    pub fn write_whole(
        &mut self,
        head: &Snapshot,
        process: &Process,
        allocations: &Allocations,
    ) -> Result<()> {
        let failed = |error: io::Error| Error::file(self.path, &error);
        atomic::write(self.path, |out| {
            let mut writer = SnapshotWriter::new(out, head, self.style).map_err(failed)?;
            write_process(&mut writer, process, allocations).map_err(failed)?;
            writer.finish().map_err(failed).map(drop)
        })?;
        self.written = true;
        Ok(())
    }

    /// Adds a process.
    pub fn add(&mut self, process: &Process, allocations: &Allocations) -> Result<()> {
        let result = match self.writer() {
            Ok(writer) => write_process(writer, process, allocations),
            Err(error) => Err(error),
        };
        result.map_err(|error| Error::file(self.path, &error))
    }

    fn writer(&mut self) -> io::Result<&mut SnapshotWriter<BufWriter<File>>> {
        if self.waiting.is_none() {
            // It has no name: nothing is left of it, whatever happens.
            let file = tempfile::tempfile_in(atomic::directory_of(self.path))?;
            self.waiting = Some(SnapshotWriter::behind(BufWriter::with_capacity(1 << 18, file), self.style));
        }
        self.waiting.as_mut().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Puts the first lines before what was added.
    pub fn finish(self, head: &Snapshot) -> Result<()> {
        if self.written {
            return Ok(());
        }
        let failed = |error: io::Error| Error::file(self.path, &error);
        let waiting = self.waiting.map(rewound).transpose().map_err(failed)?;
        atomic::write(self.path, |out| {
            let mut writer = SnapshotWriter::new(out, head, self.style).map_err(failed)?;
            if let Some(mut waiting) = waiting {
                writer.processes_from(&mut waiting).map_err(failed)?;
            }
            writer.finish().map_err(failed).map(drop)
        })
    }
}

fn rewound(waiting: SnapshotWriter<BufWriter<File>>) -> io::Result<File> {
    let mut out = waiting.into_inner();
    out.flush()?;
    let mut file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.rewind()?;
    Ok(file)
}

fn write_process<W: Write>(
    writer: &mut SnapshotWriter<W>,
    process: &Process,
    allocations: &Allocations,
) -> io::Result<()> {
    writer.begin_process(process)?;
    let stacks = Stacks::of(process);
    for allocation in infos(allocations) {
        writer.allocation(&allocation?, &stacks)?;
    }
    writer.end_process(process)
}
