//! The shared memory of the traces that we have seen. Where somebody deletes the recording while the program runs, nothing else knows
//! of it any more when the processes have ended.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

use memscope_shared::spool::header;
use memscope_shared::spool::read::SpoolFile;
use memscope_shared::trace::{ImageState, Process, TraceFile, image_state};
use rustix::process::geteuid;

/// Where spools are that don't lie beside their trace.
const SHARED: &str = "/dev/shm";
/// The times of files lag behind the clock, by less than this.
const COARSE: Duration = Duration::from_secs(1);
/// Most that are remembered.
const MOST: usize = 100_000;

/// What is remembered of each trace.
#[derive(Debug, Default)]
pub struct Spools {
    /// The recording's directory, wherever it is moved to; until the end.
    directory: Option<File>,
    /// It was deleted.
    orphaned: bool,
    /// Who owns the trace, and of its process what tells it from others.
    seen: Vec<(u32, Process)>,
    /// Processes whose traces had gone before they could be read.
    missed: Vec<u32>,
    /// When this began.
    since: Option<SystemTime>,
}

impl Spools {
    /// Of the recording in this directory.
    pub fn of(directory: &Path) -> Self {
        let directory = OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(directory);
        Self { directory: directory.ok(), since: SystemTime::now().checked_sub(COARSE), ..Self::default() }
    }

    /// Remembers what the new trace of this process names.
    pub fn note(&mut self, pid: u32, trace: &Path) {
        if self.seen.len() + self.missed.len() >= MOST {
            return;
        }
        let owner = fs::symlink_metadata(trace).map(|metadata| metadata.uid());
        let process = TraceFile::open(trace).ok().and_then(|trace| trace.process().cloned());
        let (Ok(owner), Some(process)) = (owner, process) else { return self.missed.push(pid) };
        let Process { pid, start_ticks, namespace, spool, .. } = process;
        self.seen.push((owner, Process { pid, start_ticks, namespace, spool, ..Process::default() }));
    }

    /// The program has ended: looks whether the directory was deleted. One that was only moved still has its traces, and needs what
    /// they name.
    pub fn settle(&mut self) {
        let metadata = self.directory.take().map(|directory| directory.metadata());
        self.orphaned = metadata.is_some_and(|metadata| metadata.is_ok_and(|metadata| metadata.nlink() == 0));
    }

    /// Whether the directory was deleted.
    pub const fn are_orphaned(&self) -> bool {
        self.orphaned
    }

    /// Removes those that nobody will come for: their traces were deleted, and their processes have ended. (One that runs
    /// notices by itself.)
    pub fn remove_orphans(&self) {
        if !self.are_orphaned() {
            return;
        }
        for (owner, process) in self.seen.iter().cloned().chain(self.missed_spools()) {
            let path = Path::new(OsStr::from_bytes(&process.spool));
            let is_its = || SpoolFile::open(path, owner, process.pid, process.start_ticks).is_ok();
            let has_ended = || matches!(image_state(&process, None), ImageState::Gone | ImageState::Replaced);
            if is_its() && has_ended() {
                let _ = fs::remove_file(path);
            }
        }
    }

    /// Shared memory of ours that was made since, by one of the processes whose traces nobody could read.
    fn missed_spools(&self) -> impl Iterator<Item = (u32, Process)> {
        let there = (!self.missed.is_empty()).then(|| fs::read_dir(SHARED).ok()).flatten();
        let files = there.into_iter().flatten().flatten().map(|entry| entry.path());
        files.filter(|path| path.extension() == Some(OsStr::new("spool"))).filter_map(|path| {
            let metadata = fs::symlink_metadata(&path).ok().filter(fs::Metadata::is_file)?;
            let is_new = self.since.is_some_and(|since| metadata.modified().is_ok_and(|made| made >= since));
            let (pid, start_ticks) = process_of(&path)?;
            let is_one = is_new && metadata.uid() == geteuid().as_raw() && self.missed.contains(&pid);
            let spool = path.into_os_string().into_encoded_bytes();
            is_one.then(|| (metadata.uid(), Process { pid, start_ticks, spool, ..Process::default() }))
        })
    }
}

/// The process that the header of a spool names: its number and its start.
fn process_of(spool: &Path) -> Option<(u32, u64)> {
    let file =
        OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(spool).ok()?;
    let word = |offset: usize| {
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, offset as u64).ok().map(|()| u64::from_le_bytes(bytes))
    };
    Some((u32::try_from(word(header::PID)?).ok()?, word(header::START_TICKS)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_was_moved_is_no_orphan() {
        let root = tempfile::tempdir().expect("a folder");
        let (from, to) = (root.path().join("from"), root.path().join("to"));
        let settled = |change: &dyn Fn()| {
            let mut spools = Spools::of(&from);
            change();
            spools.settle();
            spools.are_orphaned()
        };
        fs::create_dir(&from).expect("made");
        assert!(!settled(&|| ()));
        assert!(!settled(&|| fs::rename(&from, &to).expect("moved")));
        fs::create_dir(&from).expect("made");
        assert!(settled(&|| fs::remove_dir(&from).expect("removed")));
    }

    #[test]
    fn only_what_a_missed_process_has_made_is_taken() {
        let place = Path::new(SHARED).join(format!("memscope-test-{}.spool", std::process::id()));
        let found = |spools: &Spools| {
            let path = place.as_os_str().as_bytes();
            spools.missed_spools().any(|(_, process)| {
                process.spool == path && (process.pid, process.start_ticks) == (7_000_000, 5)
            })
        };
        let mut spools = Spools::of(Path::new("/none"));
        let text = File::create(&place).expect("made");
        text.write_all_at(&7_000_000_u64.to_le_bytes(), header::PID as u64).expect("written");
        text.write_all_at(&5_u64.to_le_bytes(), header::START_TICKS as u64).expect("written");
        assert!(!found(&spools), "of nobody whom we know");
        spools.note(7_000_000, Path::new("/none/7000000-0.trace"));
        let mine = found(&spools);
        spools.since = Some(SystemTime::now() + Duration::from_secs(60));
        let older = found(&spools);
        fs::remove_file(&place).expect("removed");
        assert!(mine && !older);
    }
}
