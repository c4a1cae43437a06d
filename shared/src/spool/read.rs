//! Reading a spool whose process has ended, as a file.
//!
//! Everything in it is taken as claims to check: the file may be cut, damaged or hostile.

use std::fmt;
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

use super::{
    BUFFER_BYTES, BUFFER_HEADER_BYTES, BUFFER_WORDS, HEADER_BYTES, MAGIC, VERSION, buffer, header, note,
};

/// Neither a link nor a pipe may lead us elsewhere.
const OPEN_FLAGS: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK);
/// Type and permission bits of `st_mode` that a spool has: a regular file, 0600.
const MODE: u32 = 0o100_600;
/// Mask for them.
const MODE_MASK: u32 = 0o177_777;

/// Why a file was not taken as the spool.
#[derive(Debug)]
pub enum SpoolError {
    /// It could not be opened or read.
    Io(io::Error),
    /// It is not a regular file of mode 0600.
    NotPrivate,
    /// It belongs to another user than the trace.
    Owner,
    /// It does not begin as a spool does.
    NotASpool,
    /// It was made, but its process ended before anything was written into it.
    Blank,
    /// It has another version of the layout.
    Version(u64),
    /// It is the spool of another process.
    OtherProcess,
}

impl SpoolError {
    /// Whether there is no such file.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::NotFound)
    }
}

impl fmt::Display for SpoolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) if error.kind() == io::ErrorKind::NotFound => f.write_str("it is gone"),
            Self::Io(error) => write!(f, "{error}"),
            Self::NotPrivate => f.write_str("it is not a private regular file"),
            Self::Owner => f.write_str("it belongs to another user than the trace"),
            Self::NotASpool => f.write_str("it is not shared memory of memscope"),
            Self::Blank => f.write_str("its process ended as its recording began"),
            Self::Version(version) => write!(f, "its layout has the unknown version {version}"),
            Self::OtherProcess => f.write_str("it belongs to another process"),
        }
    }
}

impl std::error::Error for SpoolError {}

impl From<io::Error> for SpoolError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The words of the spool's header; see [`header`] for what they mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "each field is documented at the constant of its name")]
pub struct SpoolHeader {
    pub pid: u64,
    pub start_ticks: u64,
    pub buffers: u64,
    pub ended_at: u64,
    pub end_reason: u64,
    pub lost_events: u64,
    /// Since when some records lay in the process's own memory; 0 where none did.
    pub private_since: u64,
    pub exit_called: u64,
    pub exit_code: u64,
    pub clock_stamp: u64,
    pub clock_ns: u64,
    pub exit_stamp: u64,
    pub lost_since: u64,
    pub preceded: u64,
}

/// What one buffer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpoolBuffer {
    /// Its index in the file.
    pub index: u64,
    /// The stream.
    pub stream: u32,
    /// The thread that wrote it.
    pub thread: u32,
    /// Position in the stream of its first word.
    pub position: u64,
    /// Words that are complete.
    pub committed: usize,
    /// Words that were noted as taken out into the trace.
    pub taken: usize,
}

/// An open spool.
#[derive(Debug)]
pub struct SpoolFile {
    file: File,
    metadata: Metadata,
    header: SpoolHeader,
}

impl SpoolFile {
    /// Opens the spool at `path` if it is a regular file, private to `owner`, and of this process.
    ///
    /// # Errors
    /// [`SpoolError`] says what it is instead.
    pub fn open(path: &Path, owner: u32, pid: u32, start_ticks: u64) -> Result<Self, SpoolError> {
        Self::open_with(OpenOptions::new().read(true), path, owner, pid, start_ticks)
    }

    /// The same, to meet the process in it.
    ///
    /// # Errors
    /// As [`SpoolFile::open`].
    pub fn open_to_share(path: &Path, owner: u32, pid: u32, start_ticks: u64) -> Result<Self, SpoolError> {
        Self::open_with(OpenOptions::new().read(true).write(true), path, owner, pid, start_ticks)
    }

    fn open_with(
        options: &mut OpenOptions,
        path: &Path,
        owner: u32,
        pid: u32,
        start_ticks: u64,
    ) -> Result<Self, SpoolError> {
        let file = options.custom_flags(OPEN_FLAGS.bits() as i32).open(path)?;
        let metadata = file.metadata()?;
        if metadata.mode() & MODE_MASK != MODE {
            return Err(SpoolError::NotPrivate);
        }
        if metadata.uid() != owner {
            return Err(SpoolError::Owner);
        }
        let header = read_header(&file)?;
        if header.pid != u64::from(pid) || header.start_ticks != start_ticks {
            return Err(SpoolError::OtherProcess);
        }
        Ok(Self { file, metadata, header })
    }

    /// The header as it stood when the spool was opened.
    #[must_use]
    pub const fn header(&self) -> &SpoolHeader {
        &self.header
    }

    /// Device and inode, to tell whether a path still means this file.
    #[must_use]
    pub fn identity(&self) -> (u64, u64) {
        (self.metadata.dev(), self.metadata.ino())
    }

    /// The file.
    #[must_use]
    pub const fn file(&self) -> &File {
        &self.file
    }

    /// Number of buffers that lie in the file, whatever the header says.
    #[must_use]
    pub fn buffers_in_file(&self) -> u64 {
        self.metadata.len().saturating_sub(HEADER_BYTES as u64) / BUFFER_BYTES as u64
    }

    /// The notes that the process left in the header: each with the process that it is about. What makes no sense is left out.
    #[must_use]
    pub fn notes(&self) -> Vec<(u32, Vec<u8>)> {
        let mut bytes = vec![0; HEADER_BYTES];
        if self.file.read_exact_at(&mut bytes, 0).is_err() {
            return Vec::new();
        }
        let (mut notes, mut at) = (Vec::new(), note::START);
        let used = usize::try_from(word(&bytes, header::NOTES_USED)).unwrap_or(0);
        let end = note::START.saturating_add(used).min(HEADER_BYTES);
        while at < end {
            let head = word(&bytes, at);
            let (pid, start) = (head as u32, at + note::HEAD_BYTES);
            let length = (head >> 32) as usize;
            // One that was not finished says no length, and hides those behind it.
            let Some(text) = bytes.get(start..start.saturating_add(length)).filter(|_| length > 0) else {
                break;
            };
            if pid != 0 {
                notes.push((pid, text.to_vec()));
            }
            at = (start + length).next_multiple_of(8);
        }
        notes
    }

    /// From now on no note is left in the header: who has it mapped is to know that nobody will look. (Where it can't be written, it
    /// may be left in vain.)
    pub fn close_notes(&self) {
        let _ = self.file.write_all_at(&1_u64.to_le_bytes(), header::NOTES_CLOSED as u64);
    }

    /// All buffers that belong to a stream.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn buffers(&self) -> io::Result<Vec<SpoolBuffer>> {
        let mut all = Vec::new();
        for index in 0..self.buffers_in_file().min(self.header.buffers) {
            let mut bytes = [0; BUFFER_HEADER_BYTES];
            self.file.read_exact_at(&mut bytes, offset_of(index))?;
            all.extend(parse_buffer(index, &bytes));
        }
        Ok(all)
    }

    /// Reads the committed words of `buffer` into `words`.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read_words(&self, buffer: &SpoolBuffer, words: &mut Vec<u64>) -> io::Result<()> {
        self.read_words_from(buffer, 0, words)
    }

    /// The same without the first `skip` words.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read_words_from(&self, buffer: &SpoolBuffer, skip: usize, words: &mut Vec<u64>) -> io::Result<()> {
        let count = buffer.committed.min(BUFFER_WORDS).saturating_sub(skip);
        let mut bytes = vec![0; count * 8];
        let offset = offset_of(buffer.index) + BUFFER_HEADER_BYTES as u64 + skip as u64 * 8;
        self.file.read_exact_at(&mut bytes, offset)?;
        words.clear();
        words.extend(bytes.chunks_exact(8).map(|b| word(b, 0)));
        Ok(())
    }
}

const fn offset_of(buffer: u64) -> u64 {
    HEADER_BYTES as u64 + buffer * BUFFER_BYTES as u64
}

fn word(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
}

fn read_header(file: &File) -> Result<SpoolHeader, SpoolError> {
    let mut bytes = [0; 256];
    file.read_exact_at(&mut bytes, 0).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof if file.metadata().is_ok_and(|m| m.len() == 0) => SpoolError::Blank,
        io::ErrorKind::UnexpectedEof => SpoolError::NotASpool,
        _ => SpoolError::Io(error),
    })?;
    let at = |offset| word(&bytes, offset);
    // Written last.
    if at(header::MAGIC) == 0 && [0, VERSION].contains(&at(header::VERSION)) {
        return Err(SpoolError::Blank);
    }
    if at(header::MAGIC) != MAGIC {
        return Err(SpoolError::NotASpool);
    }
    if at(header::VERSION) != VERSION {
        return Err(SpoolError::Version(at(header::VERSION)));
    }
    Ok(SpoolHeader {
        pid: at(header::PID),
        start_ticks: at(header::START_TICKS),
        buffers: at(header::BUFFERS),
        ended_at: at(header::ENDED_AT),
        end_reason: at(header::END_REASON),
        lost_events: at(header::LOST_EVENTS),
        private_since: at(header::PRIVATE_SINCE),
        exit_called: at(header::EXIT_CALLED),
        exit_code: at(header::EXIT_CODE),
        clock_stamp: at(header::CLOCK_STAMP),
        clock_ns: at(header::CLOCK_NS),
        exit_stamp: at(header::EXIT_STAMP),
        lost_since: at(header::LOST_SINCE),
        preceded: at(header::PRECEDED),
    })
}

/// `None` for a buffer that belongs to no stream, or whose header makes no sense.
fn parse_buffer(index: u64, bytes: &[u8]) -> Option<SpoolBuffer> {
    let stream = u32::try_from(word(bytes, buffer::STREAM)).ok().filter(|&s| s != 0)?;
    let committed = usize::try_from(word(bytes, buffer::COMMITTED)).ok().filter(|&n| n <= BUFFER_WORDS)?;
    let position = word(bytes, buffer::POSITION);
    position.checked_add(BUFFER_WORDS as u64)?;
    Some(SpoolBuffer {
        index,
        stream,
        thread: word(bytes, buffer::THREAD) as u32,
        position,
        committed,
        taken: usize::try_from(word(bytes, buffer::TAKEN)).map_or(committed, |taken| taken.min(committed)),
    })
}

#[cfg(test)]
#[path = "read_tests.rs"]
mod tests;
