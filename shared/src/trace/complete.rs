//! Completion: bringing what a process left in its spool into its trace.
//!
//! A process never closes its own trace. Whoever comes after it, `run` or `analyze`, does, and the same for
//! every kind of end:
//!
//! 1. cut an unfinished last frame off the trace,
//! 2. append the records that are in the spool but not yet in the trace,
//! 3. append the last reading of the clock and the `END` frame,
//! 4. remove the spool.
//!
//! Positions in the streams say what is there already, so it may be killed between any two steps and done
//! again. A lock on the trace keeps two of them apart; a drainer (`memscope-cli run --no-thread`) holds the same lock for as
//! long as it may write the trace.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::frame::{FRAME_ALIGN, Kind};
use super::meta::{self, ClockKind, ClockSample, End, EndKind, Process};
use super::process::{ImageState, image_state};
use super::read::{DamageKind, TraceError, TraceFile, io_error};
use super::salvage;
use crate::spool::read::{SpoolError, SpoolFile, SpoolHeader};
use crate::spool::{EXITS, EXITS_AT_ONCE, EndReason, NO_CALL_REACHED_US, ONLY_COUNTED};

/// How long the lock is waited for: a drainer notices the end of its process within a second.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is tried.
const TRY_AGAIN: Duration = Duration::from_millis(10);
/// Names that are tried for a note.
const MOST_NOTES: u32 = 10_000;

/// What the caller saw of a process's end; nothing, by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ending {
    /// Its exit status.
    pub exit_code: Option<i32>,
    /// The signal that killed it.
    pub signal: Option<i32>,
    /// `CLOCK_MONOTONIC` in ns when that was seen.
    pub seen_ns: Option<u64>,
}

/// What completion did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing but to remove a spool that was left over.
    AlreadyComplete,
    /// It closed the trace.
    Completed {
        /// The end that it wrote.
        end: End,
        /// Records that came out of the spool.
        salvaged: u64,
    },
}

/// Completes the trace at `path`, if it needs it.
///
/// # Errors
/// The process still runs, the trace is none or cannot be written, or the spool is there but cannot be read.
/// The trace is as readable afterwards as before.
pub fn complete(path: impl AsRef<Path>, ending: &Ending) -> Result<Outcome, TraceError> {
    let path = path.as_ref();
    let file = open_locked(path)?;
    let (trace, process, replaced) = loop {
        let trace = TraceFile::from_file(Arc::clone(&file), path)?;
        let process = trace.process().cloned().ok_or_else(|| TraceError::NoProcess(path.to_owned()))?;
        if trace.end().is_some() {
            if let Ok(spool) = open_spool(&file, &process) {
                remove_spool(&process, &spool);
            }
            return Ok(Outcome::AlreadyComplete);
        }
        let replaced = replaced(&process, path)?;
        // The process may have written more between our first look and its end.
        if has_length(&file, trace.len()) {
            break (trace, process, replaced);
        }
    };
    let job = Job { file, path, trace, process, replaced, ending };
    job.run()
}

fn has_length(file: &File, length: u64) -> bool {
    file.metadata().map_or(true, |metadata| metadata.len() == length)
}

/// Whether an image that runs no more was replaced by another one.
fn replaced(process: &Process, path: &Path) -> Result<Replaced, TraceError> {
    Ok(match image_state(process, path.parent()) {
        ImageState::Running(pid) => return Err(TraceError::Running(path.to_owned(), pid)),
        ImageState::Hidden => return Err(TraceError::Hidden(path.to_owned(), process.pid)),
        ImageState::Replaced => Replaced::Certainly,
        ImageState::Gone if has_later_image(path, process) => Replaced::Likely,
        ImageState::Gone => Replaced::No,
    })
}

/// The trace, locked. Who holds the lock may drain a process that runs: then that is the answer, not its end to be waited
/// for.
fn open_locked(path: &Path) -> Result<Arc<File>, TraceError> {
    let file = OpenOptions::new().read(true).write(true).open(path);
    let file = Arc::new(file.map_err(|error| io_error("open", path, error))?);
    let deadline = Instant::now() + PATIENCE;
    // Of the process of an open trace; asked for once, since traces can be long.
    let mut process = None;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(Errno::WOULDBLOCK | Errno::INTR) if Instant::now() < deadline => {}
            Err(error) => return Err(io_error("lock", path, error.into())),
        }
        let process = process.get_or_insert_with(|| process_of_open(&file, path));
        match process.as_ref().map(|process| (process.pid, image_state(process, path.parent()))) {
            Some((_, ImageState::Running(pid))) => return Err(TraceError::Running(path.to_owned(), pid)),
            Some((pid, ImageState::Hidden)) => return Err(TraceError::Hidden(path.to_owned(), pid)),
            _ => thread::sleep(TRY_AGAIN),
        }
    }
}

/// The process of a trace that has no end yet, while somebody else may be writing it.
fn process_of_open(file: &Arc<File>, path: &Path) -> Option<Process> {
    let trace = TraceFile::from_file(Arc::clone(file), path).ok()?;
    trace.process().filter(|_| trace.end().is_none()).cloned()
}

fn open_spool(trace: &File, process: &Process) -> Result<SpoolFile, SpoolError> {
    let owner = trace.metadata()?.uid();
    let (path, pid, start) = (spool_path(process), process.pid, process.start_ticks);
    match SpoolFile::open_to_share(path, owner, pid, start) {
        Err(SpoolError::Io(_)) => SpoolFile::open(path, owner, pid, start),
        other => other,
    }
}

fn spool_path(process: &Process) -> &Path {
    Path::new(OsStr::from_bytes(&process.spool))
}

/// Removes the spool, unless its path means another file by now. Failing to is harmless.
fn remove_spool(process: &Process, spool: &SpoolFile) {
    let path = spool_path(process);
    if fs::symlink_metadata(path).is_ok_and(|m| (m.dev(), m.ino()) == spool.identity()) {
        let _ = fs::remove_file(path);
    }
}

/// `memscope-RANDOM.spool`: what nobody else makes, whatever path a trace names.
fn is_name_of_spool(path: &Path) -> bool {
    let name = path.file_name().and_then(OsStr::to_str);
    let random = name.and_then(|name| name.strip_prefix("memscope-")?.strip_suffix(".spool"));
    random.is_some_and(|hex| hex.len() == 24 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Whether the same process has a trace of a later image beside this one: then this image ended by `exec`.
fn has_later_image(path: &Path, process: &Process) -> bool {
    let number = |path: &Path| -> Option<(u32, u64)> {
        let (pid, n) = path.file_name()?.to_str()?.strip_suffix(".trace")?.split_once('-')?;
        Some((pid.parse().ok()?, n.parse().ok()?))
    };
    let (Some((pid, mine)), Some(dir)) = (number(path), path.parent()) else { return false };
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    let Ok(entries) = fs::read_dir(dir) else { return false };
    let is_later = |other: &PathBuf| number(other).is_some_and(|(p, n)| p == pid && n > mine);
    // The directory is closed before others are opened: few files may be allowed.
    let later: Vec<_> = entries.flatten().map(|entry| entry.path()).filter(is_later).collect();
    later.iter().any(|other| {
        TraceFile::open(other).is_ok_and(|t| {
            t.process().is_some_and(|p| {
                (p.pid, p.start_ticks, p.namespace) == (process.pid, process.start_ticks, process.namespace)
            })
        })
    })
}

/// Whether the disk has no room for more.
fn is_full(error: &TraceError) -> bool {
    let TraceError::Io { error, .. } = error else { return false };
    matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
}

/// Whether an image ended by `exec`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Replaced {
    No,
    /// There is a later image of what seems to be the same process. (Numbers of namespaces and processes come again, and starts
    /// are known to 10 ms.)
    Likely,
    Certainly,
}

/// One trace being completed.
struct Job<'a> {
    file: Arc<File>,
    path: &'a Path,
    trace: TraceFile,
    process: Process,
    replaced: Replaced,
    ending: &'a Ending,
}

/// What is known to be missing, and since when.
#[derive(Default)]
struct Losses {
    reasons: Vec<String>,
    since: Option<u64>,
}

impl Losses {
    fn add(&mut self, reason: String, since: u64) {
        if !self.reasons.contains(&reason) {
            self.reasons.push(reason);
        }
        self.since = Some(self.since.map_or(since, |before| before.min(since)));
    }
}

impl Job<'_> {
    fn run(mut self) -> Result<Outcome, TraceError> {
        let mut losses = Losses::default();
        let spool = self.spool(&mut losses)?;
        spool.as_ref().into_iter().for_each(SpoolFile::close_notes);
        let notes = spool.as_ref().map(SpoolFile::notes).unwrap_or_default();
        let may_be = spool.as_ref().is_none_or(|spool| spool.header().exit_called == 0);
        if self.replaced == Replaced::No && may_be && self.became_unrecorded(&notes) {
            self.replaced = Replaced::Likely;
        }
        let mut at = self.cut_tail()?;
        let salvage = match &spool {
            Some(spool) => self.salvage(spool, &mut at)?,
            None => salvage::Salvage::default(),
        };
        let header = spool.as_ref().map(|s| *s.header());
        let sample = header.and_then(|h| self.last_clock(&h));
        let end = self.end(header.as_ref(), &salvage, sample, losses);
        let mut closing = Vec::new();
        meta::write_clock(&mut closing, sample.as_slice());
        meta::write_end(&mut closing, &end);
        if let Err(error) = self.append(&closing, &mut at) {
            let _ = self.file.set_len(at);
            return Err(error);
        }
        notes.iter().for_each(|(pid, text)| self.leave_note(*pid, text));
        if let Some(spool) = &spool {
            remove_spool(&self.process, spool);
        }
        Ok(Outcome::Completed { end, salvaged: salvage.records })
    }

    /// Whether there is a note about this very process that is younger than its image: it became a program that could not be
    /// recorded.
    fn became_unrecorded(&self, notes: &[(u32, Vec<u8>)]) -> bool {
        let pid = self.process.pid;
        let began = self.trace.clock_samples().iter().map(|sample| sample.realtime_ns).min().unwrap_or(0);
        // The second text of a note is its time.
        let is_later = |text: &[u8]| {
            let time = text.split(|&byte| byte == 0).nth(1).and_then(|time| std::str::from_utf8(time).ok());
            time.and_then(|time| time.parse().ok()).is_some_and(|time: u64| time >= began)
        };
        if notes.iter().any(|(about, text)| *about == pid && is_later(text)) {
            return true;
        }
        let dir = self.path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let is_about = |name: &OsStr| {
            let name = name.to_str().and_then(|name| name.strip_suffix(".unrecorded")?.split_once('-'));
            name.is_some_and(|(about, _)| about.parse() == Ok(pid))
        };
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        let files: Vec<_> =
            entries.filter(|entry| is_about(&entry.file_name())).map(|entry| entry.path()).collect();
        files.iter().any(|path| fs::read(path).is_ok_and(|text| is_later(&text)))
    }

    /// Makes a file of a note that the process could only leave in its spool. One that is there already was made by somebody who was
    /// interrupted.
    fn leave_note(&self, pid: u32, text: &[u8]) {
        let dir = self.path.parent().unwrap_or(Path::new(""));
        for number in 0..MOST_NOTES {
            let path = dir.join(format!("{pid}-{number}.unrecorded"));
            match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
                // An empty one says at least which process it is about.
                Ok(file) => return drop(file.write_all_at(text, 0).or_else(|_| file.set_len(0))),
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return,
                Err(_) if fs::read(&path).is_ok_and(|there| there == text) => return,
                Err(_) => {}
            }
        }
    }

    /// The spool; `None` where it is gone for good, which is a loss.
    fn spool(&self, losses: &mut Losses) -> Result<Option<SpoolFile>, TraceError> {
        let path = spool_path(&self.process);
        if self.process.spool.is_empty() {
            losses.add("the process had no shared memory".into(), self.last_stamp());
            return Ok(None);
        }
        match open_spool(&self.file, &self.process) {
            Ok(spool) => Ok(Some(spool)),
            Err(SpoolError::Io(error)) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(io_error("read", path, error))
            }
            Err(why @ SpoolError::Blank) => {
                if is_name_of_spool(path) {
                    let _ = fs::remove_file(path);
                }
                losses.add(why.to_string(), self.last_stamp());
                Ok(None)
            }
            Err(error @ SpoolError::Version(_)) => Err(io_error("read", path, std::io::Error::other(error))),
            Err(why) => {
                let path = path.display();
                let text = if matches!(why, SpoolError::Io(_)) {
                    format!(
                        "the end is missing: the trace was cut, or the shared memory that held it has gone ({path})"
                    )
                } else {
                    format!("the end is missing: shared memory {path}: {why}")
                };
                losses.add(text, self.last_stamp());
                Ok(None)
            }
        }
    }

    /// Last stamp of any record in the trace.
    fn last_stamp(&self) -> u64 {
        let events = self.trace.frames().iter().filter(|f| f.header.kind == Kind::EVENTS);
        events.map(|f| f.header.last_stamp).max().unwrap_or(0)
    }

    /// The lowest of the streams' last stamps.
    fn first_end(&self) -> u64 {
        let mut ends = BTreeMap::new();
        for frame in self.trace.frames().iter().filter(|f| f.header.kind == Kind::EVENTS) {
            let end: &mut u64 = ends.entry(frame.header.stream).or_default();
            *end = frame.header.last_stamp.max(*end);
        }
        ends.into_values().min().unwrap_or(0)
    }

    /// Cuts an unfinished last frame off; gives the offset to append at.
    fn cut_tail(&self) -> Result<u64, TraceError> {
        let len = self.trace.len();
        let cut =
            self.trace.damages().last().filter(|d| d.kind == DamageKind::Cut && d.offset + d.length == len);
        let at = match cut {
            Some(damage) => {
                let result = self.file.set_len(damage.offset);
                result.map_err(|error| io_error("cut", self.path, error))?;
                damage.offset
            }
            None => len,
        };
        Ok(at.next_multiple_of(FRAME_ALIGN as u64))
    }

    fn append(&self, bytes: &[u8], at: &mut u64) -> Result<(), TraceError> {
        self.file.write_all_at(bytes, *at).map_err(|error| io_error("write", self.path, error))?;
        *at += bytes.len() as u64;
        Ok(())
    }

    fn salvage(&self, spool: &SpoolFile, at: &mut u64) -> Result<salvage::Salvage, TraceError> {
        let mut failed = None;
        let result = salvage::salvage(&self.trace, spool, |frames| match self.append(frames, at) {
            Ok(()) => true,
            Err(error) => {
                failed = Some(error);
                false
            }
        });
        if failed.is_some() {
            // Part of a frame may stand behind what was written.
            self.file.set_len(*at).map_err(|error| io_error("cut", self.path, error))?;
        }
        match failed {
            // A recording that a full disk has ended gets its end, for which there is room once what did not fit is cut off. One that
            // was whole waits until there is room.
            Some(error) if is_full(&error) && EndReason::from_word(spool.header().end_reason).is_some() => {
                result.map_err(|error| io_error("read", spool_path(&self.process), error))
            }
            Some(error) => Err(error),
            None => result.map_err(|error| io_error("read", spool_path(&self.process), error)),
        }
    }

    /// The clock's last reading that stands in the spool's header, if it is later than those in the trace.
    fn last_clock(&self, header: &SpoolHeader) -> Option<ClockSample> {
        let samples = self.trace.clock_samples();
        let (first, last) =
            (samples.iter().min_by_key(|s| s.stamp)?, samples.iter().max_by_key(|s| s.stamp)?);
        let since = header.clock_ns.checked_sub(first.monotonic_ns)?;
        if header.clock_stamp <= last.stamp {
            return None;
        }
        let sample = ClockSample {
            stamp: header.clock_stamp,
            monotonic_ns: header.clock_ns,
            realtime_ns: first.realtime_ns.checked_add(since)?,
        };
        self.is_plausible(last, &sample).then_some(sample)
    }

    /// The two words of the reading may be of different times, if the process was killed between
    /// storing them. The rate tells.
    fn is_plausible(&self, last: &ClockSample, sample: &ClockSample) -> bool {
        let process = &self.process;
        let rate_known = process.clock == ClockKind::Monotonic
            || process.clock_hz > 0
            || self.trace.clock_samples().iter().any(|s| s.stamp != last.stamp);
        let expected = self.trace.clock().ns(sample.stamp);
        let elapsed = sample.monotonic_ns.saturating_sub(last.monotonic_ns);
        !rate_known || expected.abs_diff(sample.realtime_ns) <= 50_000 + elapsed / 1000
    }

    fn end(
        &self,
        header: Option<&SpoolHeader>,
        salvage: &salvage::Salvage,
        sample: Option<ClockSample>,
        mut losses: Losses,
    ) -> End {
        self.add_losses(header, salvage, &mut losses);
        let (kind, exit_code, signal) = self.kind(header);
        End {
            kind,
            exit_code,
            signal,
            stamp: self.end_stamp(kind, header, salvage, sample),
            complete: losses.reasons.is_empty(),
            reason: (!losses.reasons.is_empty()).then(|| losses.reasons.join("; ")),
            incomplete_since: losses.since,
            lost_events: header.map_or(0, |h| h.lost_events) + salvage.unwritten,
            records: self.trace.streams().iter().map(|s| s.records).sum::<u64>() + salvage.records,
        }
    }

    fn add_losses(&self, header: Option<&SpoolHeader>, salvage: &salvage::Salvage, losses: &mut Losses) {
        // In strict mode of seccomp, nobody could count what was lost.
        let uncounted =
            |h: &&SpoolHeader| h.end_reason == EndReason::Sandboxed as u64 && h.ended_at != u64::MAX;
        if let Some(header) = header.filter(|h| h.lost_events > 0 || uncounted(h)) {
            let last = salvage.last_stamp.max(self.last_stamp());
            match EndReason::from_word(header.end_reason) {
                Some(reason) => losses.add(reason.text().into(), header.ended_at.min(last)),
                None => losses.add(ONLY_COUNTED.into(), header.lost_since.min(last)),
            }
        }
        // A process without calls writes no frame of events itself.
        let is_silent = || salvage.calls == 0 && self.first_end() == 0;
        if header.is_some_and(|h| h.preceded != 0) && is_silent() {
            losses.add(NO_CALL_REACHED_US.into(), 0);
        }
        if salvage.unwritten > 0 {
            losses.add(EndReason::NoSpace.text().into(), self.first_end());
        }
        if salvage.buffers_missing > 0 {
            // Whose they were, and from when on, nobody knows: from the first stream's end, at the worst.
            losses.add("somebody has cut the shared memory".into(), self.first_end());
        }
        if let Some(header) = header.filter(|h| h.private_since != 0) {
            let reason = "the last records lay in the process's own memory: the shared memory could not grow";
            losses.add(reason.into(), header.private_since);
        }
        // A gap of the trace that the spool did not fill, or a hole between the two.
        let missing: u64 = salvage.gaps(&self.trace).map(|gap| gap.to - gap.from).sum();
        if missing > 0 {
            let since = salvage.gaps(&self.trace).map(|gap| gap.after_stamp).min().unwrap_or(0);
            losses.add(format!("{missing} words of records are missing"), since);
        }
        if salvage.malformed > 0 {
            let text = format!("{} buffers of the shared memory are damaged", salvage.malformed);
            losses.add(text, salvage.malformed_after);
        }
    }

    fn kind(&self, header: Option<&SpoolHeader>) -> (EndKind, Option<i32>, Option<i32>) {
        let called = header.map_or(0, |h| h.exit_called);
        let exited = called == EXITS;
        let status =
            header.filter(|h| h.exit_code <= u64::from(u32::MAX)).map(|h| (h.exit_code & 0xff) as i32);
        if self.replaced == Replaced::Certainly || self.replaced == Replaced::Likely && called == 0 {
            (EndKind::Exec, None, None)
        } else if let Some(signal) = self.ending.signal {
            (EndKind::Signal, None, Some(signal))
        } else if let Some(code) = self.ending.exit_code {
            let kind = if exited || header.is_none() { EndKind::Exit } else { EndKind::UnderscoreExit };
            (kind, Some(code), None)
        } else if exited {
            (EndKind::Exit, status, None)
        } else if called == EXITS_AT_ONCE {
            (EndKind::UnderscoreExit, status, None)
        } else {
            (EndKind::Unknown, None, None)
        }
    }

    /// When it ended: for `exit` and `_exit` the call, else when its end was seen; never before the last event.
    fn end_stamp(
        &self,
        kind: EndKind,
        header: Option<&SpoolHeader>,
        salvage: &salvage::Salvage,
        sample: Option<ClockSample>,
    ) -> u64 {
        let last_event = self.last_stamp().max(salvage.last_stamp);
        let called = header.filter(|h| h.exit_called != 0).map(|h| h.exit_stamp);
        let seen = self.ending.seen_ns.and_then(|ns| self.stamp_at(ns, sample));
        match kind {
            EndKind::Exit | EndKind::UnderscoreExit => called.or(seen),
            EndKind::Exec => None,
            _ => seen,
        }
        .unwrap_or(0)
        .max(last_event)
    }

    /// The stamp at a time of `CLOCK_MONOTONIC`.
    fn stamp_at(&self, monotonic_ns: u64, sample: Option<ClockSample>) -> Option<u64> {
        let mut samples = self.trace.clock_samples().to_vec();
        samples.extend(sample);
        let first = samples.iter().min_by_key(|s| s.stamp)?;
        let ns = first.realtime_ns.checked_add(monotonic_ns.checked_sub(first.monotonic_ns)?)?;
        let clock = super::clock::Clock::new(&samples, self.process.clock, self.process.clock_hz);
        Some(clock.stamp(ns))
    }
}
