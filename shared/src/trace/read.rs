//! Opening a trace: an index of its frames, made from the headers alone.
//!
//! What is damaged is skipped and listed; a cut file gives everything up to the cut. Memory grows with the
//! frames that are really there. Records are read frame by frame with `pread`, so that any number of
//! readers can go through one [`TraceFile`] at once.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::decode::{DecodeError, EventBuf};
use super::frame::{
    FILE_HEADER_BYTES, FILE_MAGIC, FRAME_ALIGN, FRAME_HEADER_BYTES, FRAME_MAGIC, FrameHeader, Kind,
    MAX_PAYLOAD_BYTES, VERSION, u32_at,
};
use super::meta::{self, ClockSample, End, MemorySample, Process, ThreadName};
use super::streams::{self, Gap, StreamIndex};

/// Largest payload that is read for the small frames (process, clock, names ...).
const MAX_META_BYTES: usize = 16 << 20;
/// Step in which a damaged stretch is searched for the next frame.
const SEARCH_BYTES: usize = 256 << 10;

/// Why a trace could not be opened or completed. Its text is `what: why`.
#[derive(Debug)]
pub enum TraceError {
    /// A system call failed.
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// How it failed.
        error: io::Error,
    },
    /// The file does not begin as a trace does.
    NotATrace(PathBuf),
    /// The trace was written in a version of the format that is not known here.
    Version(PathBuf, u32),
    /// The trace ends before it says which process it is of.
    NoProcess(PathBuf),
    /// The process still runs; its id here.
    Running(PathBuf, u32),
    /// The process is in another pid namespace and can't be seen from here; its id there.
    Hidden(PathBuf, u32),
}

impl fmt::Display for TraceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { what, path, error } => write!(f, "cannot {what} {}: {error}", path.display()),
            Self::NotATrace(path) => write!(f, "cannot read {}: it is not a memscope trace", path.display()),
            Self::Version(path, found) => write!(
                f,
                "cannot read {}: it has version {found} of the trace format, this memscope reads version {VERSION}",
                path.display()
            ),
            Self::NoProcess(path) => {
                write!(f, "cannot read {}: it was cut before its first record", path.display())
            }
            Self::Running(path, pid) => {
                write!(f, "cannot complete {}: process {pid} still runs", path.display())
            }
            Self::Hidden(path, pid) => write!(
                f,
                "cannot complete {}: process {pid} of another pid namespace may still run",
                path.display()
            ),
        }
    }
}

impl std::error::Error for TraceError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { error, .. } => Some(error),
            _ => None,
        }
    }
}

/// A frame of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameInfo {
    /// Its header.
    pub header: FrameHeader,
    /// Where the header lies in the file.
    pub offset: u64,
}

impl FrameInfo {
    /// Offset behind the frame and its padding.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.offset + self.header.total_bytes()
    }
}

/// What is wrong with a stretch of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DamageKind {
    /// The file ends inside of a frame.
    Cut,
    /// No frame is to be found there.
    Header,
    /// The frame's contents differ from their checksum or make no sense.
    Payload,
}

/// A stretch of the file that gives nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// What is wrong.
    pub kind: DamageKind,
    /// Offset of its first byte.
    pub offset: u64,
    /// Number of bytes.
    pub length: u64,
    /// The stream whose records are lost, where the header could be read and there is one.
    pub stream: Option<u32>,
    /// First and last stamp of what is lost, where known.
    pub stamps: Option<(u64, u64)>,
}

/// An open trace.
#[derive(Debug)]
pub struct TraceFile {
    file: Arc<File>,
    path: PathBuf,
    len: u64,
    frames: Vec<FrameInfo>,
    damages: Vec<Damage>,
    process: Option<Process>,
    clock: Vec<ClockSample>,
    memory: Vec<MemorySample>,
    names: Vec<ThreadName>,
    notes: Vec<String>,
    end: Option<End>,
    streams: Vec<StreamIndex>,
    gaps: Vec<Gap>,
}

impl TraceFile {
    /// Opens the trace at `path` and indexes its frames.
    ///
    /// # Errors
    /// The file cannot be read, is no trace, or is of another version. Damage is no error.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, TraceError> {
        let path = path.as_ref();
        // A pipe in its place is not waited for.
        let flags = rustix::fs::OFlags::NONBLOCK.bits() as i32;
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path);
        Self::from_file(Arc::new(file.map_err(|error| io_error("open", path, error))?), path)
    }

    /// The same with a file that is already open; `path` is for messages.
    ///
    /// # Errors
    /// As [`TraceFile::open`].
    pub fn from_file(file: Arc<File>, path: &Path) -> Result<Self, TraceError> {
        let metadata = file.metadata().map_err(|error| io_error("read", path, error))?;
        if !metadata.is_file() {
            return Err(io_error("read", path, io::Error::other("it is not a regular file")));
        }
        let len = metadata.len();
        let mut trace = Self {
            file,
            path: path.to_owned(),
            len,
            frames: Vec::new(),
            damages: Vec::new(),
            process: None,
            clock: Vec::new(),
            memory: Vec::new(),
            names: Vec::new(),
            notes: Vec::new(),
            end: None,
            streams: Vec::new(),
            gaps: Vec::new(),
        };
        trace.check_file_header()?;
        trace.scan().map_err(|error| io_error("read", path, error))?;
        trace.read_small_frames().map_err(|error| io_error("read", path, error))?;
        (trace.streams, trace.gaps) = streams::index(&trace.frames);
        Ok(trace)
    }

    /// Path that the trace was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Length of the file when it was opened.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Whether it holds no frame.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// All whole frames in the order of the file, those of unknown kinds included.
    #[must_use]
    pub fn frames(&self) -> &[FrameInfo] {
        &self.frames
    }

    /// What could not be read, in the order of the file. Contents of `EVENTS` frames are checked only
    /// when they are read.
    #[must_use]
    pub fn damages(&self) -> &[Damage] {
        &self.damages
    }

    /// The streams by number, each with its frames in order.
    #[must_use]
    pub fn streams(&self) -> &[StreamIndex] {
        &self.streams
    }

    /// Missing words in the middle or at the start of streams.
    #[must_use]
    pub fn gaps(&self) -> &[Gap] {
        &self.gaps
    }

    /// The process image.
    #[must_use]
    pub const fn process(&self) -> Option<&Process> {
        self.process.as_ref()
    }

    /// Readings of the clocks in the order of the file.
    #[must_use]
    pub fn clock_samples(&self) -> &[ClockSample] {
        &self.clock
    }

    /// The clock that they make.
    #[must_use]
    pub fn clock(&self) -> super::clock::Clock {
        let (kind, hz) = self.process.as_ref().map_or_else(Default::default, |p| (p.clock, p.clock_hz));
        super::clock::Clock::new(&self.clock, kind, hz)
    }

    /// Readings of the resident set in the order of the file.
    #[must_use]
    pub fn memory_samples(&self) -> &[MemorySample] {
        &self.memory
    }

    /// Names of threads in the order of the file.
    #[must_use]
    pub fn thread_names(&self) -> &[ThreadName] {
        &self.names
    }

    /// Remarks.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// How it ended; `None` in a trace that was not completed.
    #[must_use]
    pub const fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    /// Reads and decodes the records of frame `index` into `buf`.
    ///
    /// # Errors
    /// The frame is damaged, holds no records or cannot be read; `buf` is empty then.
    pub fn read_events(&self, index: usize, buf: &mut EventBuf) -> Result<(), DecodeError> {
        let header = self.fetch(index, buf)?;
        buf.decode(header)
    }

    /// The same, but only records of kinds from `NODE` on are certain to be there.
    ///
    /// # Errors
    /// As [`TraceFile::read_events`], but what is wrong with others may go unnoticed.
    pub fn read_special(&self, index: usize, buf: &mut EventBuf) -> Result<(), DecodeError> {
        let header = self.fetch(index, buf)?;
        buf.decode_special(header)
    }

    /// Reads a frame's payload into `buf`.
    fn fetch(&self, index: usize, buf: &mut EventBuf) -> Result<&FrameHeader, DecodeError> {
        buf.clear();
        let frame = self.frames.get(index).ok_or(DecodeError::NotEvents)?;
        if frame.header.kind != Kind::EVENTS {
            return Err(DecodeError::NotEvents);
        }
        if frame.header.stored_len as usize > MAX_PAYLOAD_BYTES {
            return Err(DecodeError::TooLarge);
        }
        self.read_payload(frame, &mut buf.payload).map_err(DecodeError::Io)?;
        Ok(&frame.header)
    }

    /// The damage that a failed [`TraceFile::read_events`] of frame `index` means.
    #[must_use]
    pub fn damage_of(&self, index: usize) -> Option<Damage> {
        self.frames.get(index).map(damaged_payload)
    }

    /// A wrong magic or version is refused; any other change of the header loses nothing, but is told.
    fn check_file_header(&mut self) -> Result<(), TraceError> {
        let mut bytes = [0; FILE_HEADER_BYTES];
        let short = || TraceError::NotATrace(self.path.clone());
        match self.file.read_exact_at(&mut bytes, 0) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(short()),
            Err(error) => return Err(io_error("read", &self.path, error)),
        }
        if bytes[..8] != FILE_MAGIC {
            return Err(short());
        }
        match u32_at(&bytes, 8) {
            VERSION => {}
            other => return Err(TraceError::Version(self.path.clone(), other)),
        }
        if crc32fast::hash(&bytes[..60]) != u32_at(&bytes, 60) {
            let length = FILE_HEADER_BYTES as u64;
            self.damages.push(Damage { length, ..nothing_at(DamageKind::Header, 0) });
        }
        Ok(())
    }

    /// Goes from header to header; where there is none, searches for the next.
    fn scan(&mut self) -> io::Result<()> {
        let mut offset = FILE_HEADER_BYTES as u64;
        while offset < self.len {
            if let Some(frame) = self.frame_at(offset)? {
                self.frames.push(frame);
                offset = frame.end();
                continue;
            }
            let bad = self.start_of_damage(offset)?;
            let next = self.next_frame(bad.offset + FRAME_ALIGN as u64)?;
            let end = next.unwrap_or(self.len);
            self.damages.push(Damage { length: end - bad.offset, ..bad });
            offset = end;
        }
        Ok(())
    }

    /// The frame at `offset`, if a valid header stands there and the file is long enough.
    fn frame_at(&self, offset: u64) -> io::Result<Option<FrameInfo>> {
        Ok(self.header_at(offset)?.filter(|frame| self.fits(frame)))
    }

    fn header_at(&self, offset: u64) -> io::Result<Option<FrameInfo>> {
        if self.len.saturating_sub(offset) < FRAME_HEADER_BYTES as u64 {
            return Ok(None);
        }
        let mut bytes = [0; FRAME_HEADER_BYTES];
        read_up_to(&self.file, &mut bytes, offset)?;
        Ok(FrameHeader::from_bytes(&bytes).map(|header| FrameInfo { header, offset }))
    }

    /// Whether the payload lies within the file. Padding may be missing at the very end.
    const fn fits(&self, frame: &FrameInfo) -> bool {
        let payload_end = frame.offset + FRAME_HEADER_BYTES as u64 + frame.header.stored_len as u64;
        payload_end <= self.len
    }

    /// There is no whole frame at `offset`: where does the damage begin?
    ///
    /// If the frame before has damaged contents too, bytes are missing from its middle, and whole frames may lie
    /// within what it claims as its own: it is taken back.
    fn start_of_damage(&mut self, offset: u64) -> io::Result<Damage> {
        if let Some(&last) = self.frames.last()
            && last.end() == offset
            && !self.payload_is_right(&last)?
        {
            self.frames.pop();
            return Ok(damaged_payload(&last));
        }
        let cut = self.header_at(offset)?;
        Ok(match cut {
            Some(frame) => Damage { kind: DamageKind::Cut, ..damaged_payload(&frame) },
            None if self.len - offset < FRAME_HEADER_BYTES as u64 => nothing_at(DamageKind::Cut, offset),
            None => nothing_at(DamageKind::Header, offset),
        })
    }

    fn payload_is_right(&self, frame: &FrameInfo) -> io::Result<bool> {
        let mut crc = crc32fast::Hasher::new();
        let mut chunk = vec![0; SEARCH_BYTES];
        let (mut at, mut left) = (frame.offset + FRAME_HEADER_BYTES as u64, frame.header.stored_len as usize);
        while left > 0 {
            let part = &mut chunk[..left.min(SEARCH_BYTES)];
            if read_up_to(&self.file, part, at)? < part.len() {
                return Ok(false);
            }
            crc.update(part);
            at += part.len() as u64;
            left -= part.len();
        }
        Ok(crc.finalize() == frame.header.payload_crc)
    }

    /// Offset of the first whole frame at or behind `from`.
    fn next_frame(&self, from: u64) -> io::Result<Option<u64>> {
        let mut chunk = vec![0; SEARCH_BYTES];
        let mut base = from.next_multiple_of(FRAME_ALIGN as u64);
        while base < self.len {
            let read = read_up_to(&self.file, &mut chunk, base)?;
            for at in (0..read).step_by(FRAME_ALIGN) {
                let offset = base + at as u64;
                if chunk[at..read].starts_with(&FRAME_MAGIC) && self.frame_at(offset)?.is_some() {
                    return Ok(Some(offset));
                }
            }
            if read < chunk.len() {
                break;
            }
            base += read as u64;
        }
        Ok(None)
    }

    fn read_payload(&self, frame: &FrameInfo, payload: &mut Vec<u8>) -> io::Result<()> {
        payload.resize(frame.header.stored_len as usize, 0);
        self.file.read_exact_at(payload, frame.offset + FRAME_HEADER_BYTES as u64)
    }

    /// Reads everything that is no `EVENTS` frame.
    fn read_small_frames(&mut self) -> io::Result<()> {
        let mut payload = Vec::new();
        for i in 0..self.frames.len() {
            let frame = self.frames[i];
            if !(Kind::PROCESS..=Kind::NOTE).contains(&frame.header.kind) || frame.header.kind == Kind::EVENTS
            {
                continue;
            }
            if frame.header.stored_len as usize > MAX_META_BYTES {
                self.damages.push(damaged_payload(&frame));
                continue;
            }
            self.read_payload(&frame, &mut payload)?;
            if crc32fast::hash(&payload) != frame.header.payload_crc || frame.header.codec != 0 {
                self.damages.push(damaged_payload(&frame));
                continue;
            }
            self.take_small_frame(frame.header.kind, &payload);
        }
        self.damages.sort_by_key(|d| d.offset);
        Ok(())
    }

    fn take_small_frame(&mut self, kind: Kind, payload: &[u8]) {
        match kind {
            Kind::PROCESS if self.process.is_none() => self.process = Some(meta::read_process(payload)),
            Kind::CLOCK => self.clock.extend(meta::read_clock(payload)),
            Kind::MEMORY => self.memory.extend(meta::read_memory(payload)),
            Kind::NAMES => self.names.extend(meta::read_names(payload)),
            Kind::END if self.end.is_none() => self.end = Some(meta::read_end(payload)),
            Kind::NOTE => self.notes.push(meta::read_note(payload)),
            _ => {}
        }
    }
}

/// Reads until `bytes` is full or the file ends.
fn read_up_to(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < bytes.len() {
        match file.read_at(&mut bytes[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

fn damaged_payload(frame: &FrameInfo) -> Damage {
    let is_events = frame.header.kind == Kind::EVENTS;
    Damage {
        kind: DamageKind::Payload,
        offset: frame.offset,
        length: frame.header.total_bytes(),
        stream: is_events.then_some(frame.header.stream),
        stamps: is_events.then_some((frame.header.first_stamp, frame.header.last_stamp)),
    }
}

const fn nothing_at(kind: DamageKind, offset: u64) -> Damage {
    Damage { kind, offset, length: 0, stream: None, stamps: None }
}

pub(super) fn io_error(what: &'static str, path: &Path, error: io::Error) -> TraceError {
    TraceError::Io { what, path: path.to_owned(), error }
}
