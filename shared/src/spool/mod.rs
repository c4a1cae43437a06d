//! The spool: the shared memory that holds the buffers of a recorded process, as a file.
//!
//! Threads write records into buffers of the spool; a writer takes them out into the trace. Since
//! the memory belongs to a file, what a thread has recorded outlives it, however the process ends.
//!
//! ```text
//! 0        4096                    +BUFFER_BYTES
//! +--------+-----------------------+-----------------------+ ...
//! | header | buffer 0              | buffer 1              |
//! +--------+-----------------------+-----------------------+ ...
//!            \_ 64-byte buffer header, then words of records
//! ```
//!
//! All numbers are little-endian 64-bit words at the offsets below. Words marked *live* change
//! while the process runs.

#[cfg(feature = "analysis")]
pub mod read;
pub mod role;

/// First word of a spool: "MEMSPOOL".
pub const MAGIC: u64 = u64::from_le_bytes(*b"MEMSPOOL");
/// Version of this layout.
pub const VERSION: u64 = 1;
/// Size of the spool's header.
pub const HEADER_BYTES: usize = 4096;
/// Size of one buffer with its header.
///
/// Models (`--cfg loom`) have small ones, which a few records fill.
pub const BUFFER_BYTES: usize = if cfg!(loom) { BUFFER_HEADER_BYTES + 96 } else { 64 << 10 };
/// Size of a buffer's header.
pub const BUFFER_HEADER_BYTES: usize = 64;
/// Words of records that a buffer holds.
pub const BUFFER_WORDS: usize = (BUFFER_BYTES - BUFFER_HEADER_BYTES) / 8;

/// Offsets of the words of the spool's header, in bytes.
pub mod header {
    /// [`super::MAGIC`].
    pub const MAGIC: usize = 0;
    /// [`super::VERSION`].
    pub const VERSION: usize = 8;
    /// Process id.
    pub const PID: usize = 16;
    /// Start time of the process in clock ticks since boot (field 22 of `/proc/PID/stat`).
    pub const START_TICKS: usize = 24;
    /// *live*: number of buffers that the file holds.
    pub const BUFFERS: usize = 32;
    /// *live*: stamp of the instant at which recording ended, `u64::MAX` while it goes on.
    pub const ENDED_AT: usize = 40;
    /// *live*: why recording ended early ([`super::EndReason`] as a number), 0 where it did not.
    pub const END_REASON: usize = 48;
    /// *live*: events that were only counted after recording had ended.
    pub const LOST_EVENTS: usize = 56;
    /// *live*: how the process ends itself ([`super::EXITS`], [`super::EXITS_AT_ONCE`]), 0 before; the status is in `EXIT_CODE`.
    pub const EXIT_CALLED: usize = 64;
    /// *live*: the status that was passed to `exit` or `_exit`; above 2^32 where it is not known.
    pub const EXIT_CODE: usize = 72;
    /// *live*: stamp of the last clock sample.
    pub const CLOCK_STAMP: usize = 80;
    /// *live*: `CLOCK_MONOTONIC` of the last clock sample, ns.
    pub const CLOCK_NS: usize = 88;
    /// *live*: stamp at which `exit` was called.
    pub const EXIT_STAMP: usize = 96;
    /// *live*: stamp since when some records lie in the process's own memory, because the spool could not grow; 0
    /// where all of them are here.
    pub const PRIVATE_SINCE: usize = 104;

    // What follows serves a drainer (see [`super::role`]). Of these words the lower halves are used.

    /// *live*: who writes the trace.
    pub const ROLE: usize = 112;
    /// *live*: counts what the drainer should look at; it sleeps on it.
    pub const BELL: usize = 120;
    /// *live*: 1 while the drainer sleeps.
    pub const ASLEEP: usize = 128;
    /// *live*: counts buffers that were left to the drainer.
    pub const LEFT: usize = 136;
    /// *live*: counts buffers that the drainer has given back; threads sleep on it.
    pub const RETURNED: usize = 144;
    /// *live*: threads that wait for a buffer.
    pub const WAITERS: usize = 152;
    /// *live*: 1 where the process's threads can't ring: the drainer is to look often by itself.
    pub const POLLS: usize = 160;
    /// *live*: a last look at the process: 1 asked for, 2 done; the thread that asked sleeps on it.
    pub const LAST_LOOK: usize = 168;

    /// *live*: stamp of the first event that was only counted, 0 where none was.
    pub const LOST_SINCE: usize = 176;
    /// 1 where another library's `malloc` comes before ours: calls may not reach us.
    pub const PRECEDED: usize = 184;
    /// *live*: 1 once nobody will look for further notes: the process's trace has its end.
    pub const NOTES_CLOSED: usize = 1008;
    /// *live*: bytes that notes take (see [`super::note`]).
    pub const NOTES_USED: usize = 1016;
}

/// Notes about programs that could not be recorded, left here where no file could be: one behind the other, each a word (length
/// of the text << 32 | process id; id 0: withdrawn) and the text of a note's file, padded to whole words.
pub mod note {
    /// Offset of the first one.
    pub const START: usize = 1024;
    /// Bytes in front of the text.
    pub const HEAD_BYTES: usize = 8;
    /// Longest text; what is beyond is cut.
    pub const MOST: usize = 1000;
}

/// What to say of a process that has [`header::PRECEDED`], and in which no call has reached us.
pub const NO_CALL_REACHED_US: &str =
    "no call was seen: another library takes them, which comes before libmemscope.so in LD_PRELOAD";

/// [`header::EXIT_CALLED`]: `exit` or `quick_exit` was called.
pub const EXITS: u64 = 1;
/// The same: `_exit` or `_Exit` was called.
pub const EXITS_AT_ONCE: u64 = 2;

/// Offsets of the words of a buffer's header, in bytes from the buffer's start.
pub mod buffer {
    /// *live*: 0 free, else the stream that it belongs to (a stream's number starts at 1).
    pub const STREAM: usize = 0;
    /// *live*: thread number.
    pub const THREAD: usize = 8;
    /// *live*: position in the stream of the buffer's first word, in words.
    pub const POSITION: usize = 16;
    /// *live*: words that are complete. Written last, after the records that it covers.
    pub const COMMITTED: usize = 24;
    /// *live*: words that were taken out into the trace.
    pub const TAKEN: usize = 32;
    /// *live*: how far it is, of those in `super::role`; the lower half is used.
    pub const STATE: usize = 56;
}

/// Why recording ended before the process did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum EndReason {
    /// For a reason that is not listed here.
    Other = 1,
    /// No space was left for the trace or the spool.
    NoSpace = 2,
    /// Something may not be written or made.
    NoPermission = 3,
    /// A resource limit was reached.
    Limit = 4,
    /// A wait for a free buffer made no progress.
    NoProgress = 5,
    /// The trace could not be written.
    WriteFailed = 6,
    /// The memory of our own ran out.
    NoMemory = 7,
    /// More happened before the library's constructor ran than the early buffers hold.
    EarlyOverflow = 8,
    /// The program has restricted its own system calls (seccomp), and what was prepared for that is used up.
    Sandboxed = 9,
    /// The trace was deleted while the program ran.
    Deleted = 10,
}

/// What to tell people where recording went on, and single events were only counted.
pub const ONLY_COUNTED: &str = "some calls were only counted: signal handlers interrupted each other too deeply, or a thread got no memory";

impl EndReason {
    /// The reason that `END_REASON` holds; `None` where recording did not end early.
    #[must_use]
    pub const fn from_word(word: u64) -> Option<Self> {
        Some(match word {
            0 => return None,
            2 => Self::NoSpace,
            3 => Self::NoPermission,
            4 => Self::Limit,
            5 => Self::NoProgress,
            6 => Self::WriteFailed,
            7 => Self::NoMemory,
            8 => Self::EarlyOverflow,
            9 => Self::Sandboxed,
            10 => Self::Deleted,
            _ => Self::Other,
        })
    }

    /// What to tell people.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Other => "recording ended early",
            Self::NoSpace => "no space was left for the recording",
            Self::NoPermission => "the recording could not be written for lack of permission",
            Self::Limit => "a resource limit of the process was reached",
            Self::NoProgress => "writing the recording made no progress for too long",
            Self::WriteFailed => "writing the recording failed",
            Self::NoMemory => "no memory was left for recording",
            Self::EarlyOverflow => "too many calls came before the library could start",
            Self::Sandboxed => {
                "the program has restricted its own system calls (seccomp): memscope makes none after that"
            }
            Self::Deleted => "the trace was deleted or moved while the program ran",
        }
    }
}
