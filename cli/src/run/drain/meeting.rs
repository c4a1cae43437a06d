//! The shared memory in which we meet a process that we drain, and what else has no safe interface.
//!
//! Only words that are meant for two processes are used through the mapping, as atomics; records are read from the file.
//! Whatever stands in them may be nonsense: a program can write anywhere.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use memscope_shared::spool::{BUFFER_BYTES, HEADER_BYTES, buffer, header};
use rustix::fs::{FlockOperation, flock};
use rustix::thread::futex;

use super::faults::Watched;

/// Most buffers that are looked at: 4 GiB.
const MOST_BUFFERS: u64 = 1 << 16;

/// A shared mapping of the start of a file. Where the file is cut, zeros take the place of what has gone.
#[derive(Debug)]
struct Mapping {
    start: NonNull<u8>,
    bytes: usize,
    /// Goes before the mapping does.
    watched: Option<Watched>,
}

// SAFETY: the mapping has no ties to a thread, and is used through atomics only.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(file: &File, bytes: usize) -> io::Result<Self> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let start =
            unsafe { libc::mmap(ptr::null_mut(), bytes, access, libc::MAP_SHARED, file.as_raw_fd(), 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let address = start as usize;
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::from(io::ErrorKind::Other))?;
        let mapping = Self { start, bytes, watched: Watched::new(address, bytes) };
        if mapping.watched.is_some() { Ok(mapping) } else { Err(io::ErrorKind::OutOfMemory.into()) }
    }

    /// Whether all of it is still what the file holds.
    fn is_whole(&self) -> bool {
        self.watched.as_ref().is_some_and(|watched| !watched.is_broken())
    }

    /// The word of 32 bits at `offset`, which must be a multiple of 8.
    fn half(&self, offset: usize) -> Option<&AtomicU32> {
        if !self.has_word(offset) {
            return None;
        }
        // SAFETY: within the mapping, which lives as long as `self`, aligned, and used as an atomic only.
        Some(unsafe { &*self.start.as_ptr().add(offset).cast::<AtomicU32>() })
    }

    /// The word of 64 bits at `offset`.
    fn word(&self, offset: usize) -> Option<&AtomicU64> {
        if !self.has_word(offset) {
            return None;
        }
        // SAFETY: as above.
        Some(unsafe { &*self.start.as_ptr().add(offset).cast::<AtomicU64>() })
    }

    fn has_word(&self, offset: usize) -> bool {
        offset.is_multiple_of(8) && offset.checked_add(8).is_some_and(|end| end <= self.bytes)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        self.watched = None;
        // SAFETY: it is ours, and nobody has a reference into it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

/// The spool's header.
#[derive(Debug)]
pub struct Meeting(Mapping);

impl Meeting {
    /// Maps the header of a spool.
    pub fn of(spool: &File) -> io::Result<Self> {
        if spool.metadata()?.len() < HEADER_BYTES as u64 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Mapping::new(spool, HEADER_BYTES).map(Self)
    }

    fn half(&self, offset: usize) -> &AtomicU32 {
        // Nobody else comes here, and the offsets are those of `header`.
        static NOTHING: AtomicU32 = AtomicU32::new(0);
        self.0.half(offset).unwrap_or(&NOTHING)
    }

    /// Who writes the trace.
    pub fn role(&self) -> &AtomicU32 {
        self.half(header::ROLE)
    }

    /// What the process asks us to look at: 1 where its last moment has come.
    pub fn last_look(&self) -> &AtomicU32 {
        self.half(header::LAST_LOOK)
    }

    /// The process's threads can't wake us.
    pub fn polls(&self) -> bool {
        self.half(header::POLLS).load(Ordering::Relaxed) != 0
    }

    /// Number of buffers, by the process's own account.
    pub fn buffers(&self) -> u64 {
        self.0.word(header::BUFFERS).map_or(0, |word| word.load(Ordering::Acquire)).min(MOST_BUFFERS)
    }

    /// False once somebody has cut the spool.
    pub fn is_whole(&self) -> bool {
        self.0.is_whole()
    }

    /// What [`Meeting::sleep`] compares with.
    pub fn rings(&self) -> u32 {
        self.half(header::BELL).load(Ordering::SeqCst)
    }

    /// Wakes the thread that sleeps here, as the process does.
    pub fn ring(&self) {
        self.half(header::BELL).fetch_add(1, Ordering::SeqCst);
        let _ = futex::wake(self.half(header::BELL), futex::Flags::empty(), 1);
    }

    /// Sleeps until somebody has rung since `seen`, at most `time`.
    pub fn sleep(&self, seen: u32, time: Duration) {
        let asleep = self.half(header::ASLEEP);
        asleep.store(1, Ordering::SeqCst);
        let time =
            futex::Timespec { tv_sec: time.as_secs().cast_signed(), tv_nsec: time.subsec_nanos().into() };
        let _ = futex::wait(self.half(header::BELL), futex::Flags::empty(), seen, Some(&time));
        asleep.store(0, Ordering::SeqCst);
    }

    /// Tells the process's threads that buffers have come back, or that they are to look whose turn it is.
    pub fn give_back(&self, count: u32) {
        let returned = self.half(header::RETURNED);
        returned.fetch_add(count, Ordering::SeqCst);
        if self.half(header::WAITERS).load(Ordering::SeqCst) != 0 {
            let _ = futex::wake(returned, futex::Flags::empty(), i32::MAX.cast_unsigned());
        }
    }

    /// Answers that the last look has been taken.
    pub fn has_looked(&self) {
        self.last_look().store(2, Ordering::SeqCst);
        let _ = futex::wake(self.last_look(), futex::Flags::empty(), i32::MAX.cast_unsigned());
    }
}

/// The headers of the buffers.
#[derive(Debug, Default)]
pub struct Buffers {
    mapping: Option<Mapping>,
    count: u64,
}

/// A buffer that is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InUse {
    /// Its index.
    pub index: u64,
    /// [`memscope_shared::spool::role::FILLING`] or `FULL`.
    pub state: u32,
    /// Its stream.
    pub stream: u64,
    /// The thread that wrote its first record.
    pub thread: u64,
    /// Position of its first word in the stream.
    pub position: u64,
    /// Words that are complete.
    pub committed: u64,
}

impl Buffers {
    /// Makes sure that as many buffers are mapped as the process has.
    ///
    /// # Errors
    /// Those of mapping them; `InvalidData` where there are fewer than before, or than the file holds: somebody has cut it.
    pub fn grow(&mut self, spool: &File, count: u64) -> io::Result<()> {
        let held = spool.metadata()?.len().saturating_sub(HEADER_BYTES as u64) / BUFFER_BYTES as u64;
        if count < self.count || held < count {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if count != self.count {
            self.mapping = None;
            self.mapping = Some(Mapping::new(spool, HEADER_BYTES + count as usize * BUFFER_BYTES)?);
            self.count = count;
        }
        Ok(())
    }

    /// False once somebody has cut the spool.
    pub fn are_whole(&self) -> bool {
        self.mapping.as_ref().is_none_or(Mapping::is_whole)
    }

    /// Number of buffers.
    pub const fn len(&self) -> u64 {
        self.count
    }

    /// What the header of a buffer says; `None` where it is in nobody's use. Each word is read once.
    pub fn look_at(&self, index: u64) -> Option<InUse> {
        let start = usize::try_from(index).ok()?.checked_mul(BUFFER_BYTES)?.checked_add(HEADER_BYTES)?;
        let mapping = self.mapping.as_ref()?;
        // The state first: what belongs to it was written before.
        let state = mapping.half(start + buffer::STATE)?.load(Ordering::Acquire);
        let word = |offset| Some(mapping.word(start + offset)?.load(Ordering::Acquire));
        Some(InUse {
            index,
            state,
            stream: word(buffer::STREAM)?,
            thread: word(buffer::THREAD)?,
            position: word(buffer::POSITION)?,
            committed: word(buffer::COMMITTED)?,
        })
        .filter(|found| found.stream != 0)
    }

    /// The word that says how far a buffer is.
    pub fn state(&self, index: u64) -> Option<&AtomicU32> {
        let start = usize::try_from(index).ok()?.checked_mul(BUFFER_BYTES)?.checked_add(HEADER_BYTES)?;
        self.mapping.as_ref()?.half(start + buffer::STATE)
    }
}

/// Locks a trace for as long as it is open here, in two ways that don't know of each other: as a whole, which keeps those
/// away who complete it, and its first byte, the sign for the process that we live. False where somebody else has one of
/// them, or the file system has no locks.
pub fn lock(file: &File) -> bool {
    if flock(file, FlockOperation::NonBlockingLockExclusive).is_err() {
        return false;
    }
    // SAFETY: all zeros is a valid `libc::flock`: from the start of the file.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_WRLCK as i16;
    lock.l_len = 1;
    // SAFETY: `lock` is readable and writable for the call.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw mut lock) == 0 }
}

/// The processor's own clock, which stamps are readings of.
pub fn tsc() -> u64 {
    // SAFETY: every x86-64 processor has the instruction.
    unsafe { std::arch::x86_64::_rdtsc() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn words_lie_where_the_layout_says() {
        let file = tempfile::tempfile().expect("a file");
        assert!(Meeting::of(&file).is_err(), "too short");
        let bytes = HEADER_BYTES + 2 * BUFFER_BYTES;
        file.set_len(bytes as u64).expect("cut");
        let put = |offset: usize, value: u64| {
            file.write_all_at(&value.to_le_bytes(), offset as u64).expect("written");
        };
        put(header::ROLE, 1);
        put(header::BUFFERS, u64::MAX);
        let second = HEADER_BYTES + BUFFER_BYTES;
        for (offset, value) in [(buffer::STATE, 2), (buffer::STREAM, 3), (buffer::POSITION, 4)] {
            put(second + offset, value);
        }
        let meeting = Meeting::of(&file).expect("mapped");
        assert_eq!(meeting.role().load(Ordering::Relaxed), 1);
        assert_eq!(meeting.buffers(), MOST_BUFFERS);
        let mut buffers = Buffers::default();
        assert_eq!(buffers.look_at(0), None);
        buffers.grow(&file, meeting.buffers()).expect_err("more than the file holds");
        put(header::BUFFERS, 2);
        buffers.grow(&file, meeting.buffers()).expect("mapped");
        assert_eq!((buffers.len(), buffers.look_at(0), buffers.look_at(2)), (2, None, None));
        let found = buffers.look_at(1).expect("in use");
        assert_eq!((found.state, found.stream, found.position, found.committed), (2, 3, 4, 0));
        assert!(buffers.state(u64::MAX).is_none() && buffers.look_at(u64::MAX / 8).is_none());
    }

    #[test]
    fn a_spool_that_is_cut() {
        let file = tempfile::tempfile().expect("a file");
        file.set_len((HEADER_BYTES + BUFFER_BYTES) as u64).expect("cut");
        let meeting = Meeting::of(&file).expect("mapped");
        let mut buffers = Buffers::default();
        buffers.grow(&file, 1).expect("mapped");
        meeting.role().store(3, Ordering::Relaxed);
        buffers.state(0).expect("a word").store(2, Ordering::Relaxed);
        assert!(meeting.is_whole() && buffers.are_whole());
        file.set_len(0).expect("cut");
        // Each would be SIGBUS.
        assert_eq!(buffers.look_at(0), None);
        assert_eq!((meeting.role().load(Ordering::Relaxed), meeting.buffers()), (0, 0));
        assert!(!meeting.is_whole() && !buffers.are_whole());
        meeting.give_back(1);
        for count in [0, 1] {
            let error = buffers.grow(&file, count).expect_err("somebody has cut it");
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
    }

    #[test]
    fn a_lock_is_one_opening_s() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let other = File::options().write(true).open(file.path()).expect("opened");
        assert!(lock(file.as_file()) && !lock(&other));
        drop(file);
        assert!(lock(&other));
    }
}
