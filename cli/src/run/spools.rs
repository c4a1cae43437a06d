//! The shared memory of the traces that we have seen. Where somebody deletes the recording while the program runs, nothing else knows
//! of it any more when the processes have ended.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use memscope_shared::spool::read::SpoolFile;
use memscope_shared::trace::{ImageState, Process, TraceFile, image_state};

/// Most that are remembered.
const MOST: usize = 100_000;

/// What is remembered of each trace.
#[derive(Debug, Default)]
pub struct Spools {
    /// The recording's directory, wherever it is moved to.
    directory: Option<File>,
    /// Who owns the trace, and of its process what tells it from others.
    seen: Vec<(u32, Process)>,
}

impl Spools {
    /// Of the recording in this directory.
    pub fn of(directory: &Path) -> Self {
        let directory = OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(directory);
        Self { directory: directory.ok(), seen: Vec::new() }
    }

    /// Remembers what a new trace names.
    pub fn note(&mut self, trace: &Path) {
        let Ok(owner) = fs::symlink_metadata(trace).map(|metadata| metadata.uid()) else { return };
        let process = TraceFile::open(trace).ok().and_then(|trace| trace.process().cloned());
        let Some(process) = process.filter(|process| !process.spool.is_empty()) else { return };
        if self.seen.len() < MOST {
            let Process { pid, start_ticks, namespace, spool, .. } = process;
            self.seen.push((owner, Process { pid, start_ticks, namespace, spool, ..Process::default() }));
        }
    }

    /// Whether the directory was deleted: one that was only moved still has its traces, and needs what they name.
    pub fn are_orphaned(&self) -> bool {
        let metadata = self.directory.as_ref().map(File::metadata);
        metadata.is_some_and(|metadata| metadata.is_ok_and(|metadata| metadata.nlink() == 0))
    }

    /// Removes those that nobody will come for: their traces were deleted, and their processes have ended. (One that runs
    /// notices by itself.)
    pub fn remove_orphans(&self) {
        if !self.are_orphaned() {
            return;
        }
        for (owner, process) in &self.seen {
            let path = Path::new(OsStr::from_bytes(&process.spool));
            let is_its = || SpoolFile::open(path, *owner, process.pid, process.start_ticks).is_ok();
            let has_ended = || matches!(image_state(process, None), ImageState::Gone | ImageState::Replaced);
            if is_its() && has_ended() {
                let _ = fs::remove_file(path);
            }
        }
    }
}
