//! The file whose pages are the spool: on tmpfs where possible, so that nothing is written back while the
//! program runs, else beside the trace.
//!
//! No descriptor is kept: programs close what they don't know. The file grows in segments; the blocks of a
//! segment are allocated before it is mapped, since touching a page that the disk has no room for is SIGBUS.

use crate::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};
use crate::sys::{Errno, file, memory, process, syscall};
use core::ffi::CStr;
use memscope_shared::spool as layout;

/// Buffers in the first segment, which every recorded process pays for, and in the others; fewer where a limit or a full disk
/// leaves less room.
const FIRST: usize = 1;
const LATER: usize = 8;

const MAX_NAME: usize = 4096 + 64;

/// The spool's file. Valid when all bytes are zero: then there is none yet.
#[derive(Debug)]
pub struct SpoolFile {
    /// The mapped header, null while there is no file.
    header: AtomicPtr<u8>,
    segments: AtomicU32,
    length: AtomicU32,
    path: [u8; MAX_NAME],
}

/// One live word of the spool's header.
#[derive(Clone, Copy, Debug)]
pub struct Word<'a>(&'a AtomicU64);

impl Word<'_> {
    /// Reads it.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
    /// Writes it.
    pub fn set(self, value: u64) {
        self.0.store(value, Ordering::Release);
    }
    /// Adds to it.
    pub fn add(self, value: u64) {
        self.0.fetch_add(value, Ordering::AcqRel);
    }
    /// Replaces `from`; false where another thread was first.
    #[must_use]
    pub fn replace(self, from: u64, to: u64) -> bool {
        self.0.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

impl SpoolFile {
    /// Where a spool may be, the best place first: in memory, else beside the trace.
    #[must_use]
    pub const fn places(directory: &[u8]) -> [&[u8]; 2] {
        [b"/dev/shm", directory]
    }

    /// Makes the file under the name that it was [given](Self::name), and maps its header.
    ///
    /// # Safety
    /// One thread only, before anybody else uses `self`.
    pub unsafe fn create(&mut self, start_ticks: u64) -> Result<(), Errno> {
        let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL;
        let file = file::File::open_briefly(self.path(), flags, 0o600)?;
        let header = self.map_header(&file, start_ticks).inspect_err(|_| {
            let _ = file::remove(self.path());
        })?;
        self.header.store(header, Ordering::Release);
        Ok(())
    }

    /// Gives it a name, `PLACE/memscope-RANDOM.spool`, that nobody can guess: the place may be shared.
    pub fn name(&mut self, place: &[u8]) -> Result<(), Errno> {
        let mut random = [0_u8; 12];
        let args = [random.as_mut_ptr() as usize, random.len(), 0, 0, 0, 0];
        // SAFETY: `random` is writable for its length.
        unsafe { syscall(libc::SYS_getrandom, args) }?;
        let mut at = 0;
        let hex = |nibble: u8| b"0123456789abcdef"[usize::from(nibble & 15)];
        let name = random.iter().flat_map(|&byte| [hex(byte >> 4), hex(byte)]);
        let parts = place.iter().copied().chain(*b"/memscope-").chain(name).chain(*b".spool\0");
        for byte in parts {
            *self.path.get_mut(at).ok_or(Errno(libc::ENAMETOOLONG))? = byte;
            at += 1;
        }
        self.length.store(at as u32, Ordering::Relaxed);
        Ok(())
    }

    fn map_header(&self, file: &file::File, start_ticks: u64) -> Result<*mut u8, Errno> {
        // With the first segment: where that finds no room, another place may have it.
        let bytes = layout::HEADER_BYTES + FIRST * layout::BUFFER_BYTES;
        file.allocate(0, bytes as u64)?;
        file.restrict(0o600)?;
        let header = memory::map_shared(file.fd(), 0, bytes)?;
        let word = |offset: usize, value: u64| {
            // SAFETY: the offsets lie inside the header, which was just mapped.
            unsafe { header.add(offset).cast::<u64>().write_volatile(value) }
        };
        use layout::header as h;
        word(h::VERSION, layout::VERSION);
        word(h::PID, u64::from(process::pid()));
        word(h::START_TICKS, start_ticks);
        word(h::ENDED_AT, u64::MAX);
        word(h::MAGIC, layout::MAGIC);
        Ok(header)
    }

    /// Its path, from when it has a name.
    #[must_use]
    pub fn path(&self) -> &CStr {
        CStr::from_bytes_with_nul(&self.path[..self.length.load(Ordering::Relaxed) as usize]).unwrap_or(c"")
    }

    /// True once the file exists.
    #[must_use]
    pub fn exists(&self) -> bool {
        !self.header.load(Ordering::Acquire).is_null()
    }

    /// From now on, notes go into its header.
    pub fn take_notes(&self) {
        if self.exists() {
            // SAFETY: the header is mapped for good.
            unsafe { super::notes::go_to(self.header.load(Ordering::Acquire)) };
        }
    }

    /// A live word of the header, by its offset; `None` while there is no file.
    #[must_use]
    pub fn word(&self, offset: usize) -> Option<Word<'_>> {
        let header = self.header.load(Ordering::Acquire);
        if header.is_null() || offset + 8 > layout::HEADER_BYTES {
            return None;
        }
        // SAFETY: the header is mapped for good, page aligned, and its words are only used as atomics.
        Some(Word(unsafe { &*header.add(offset).cast::<AtomicU64>() }))
    }

    /// The lower half of a live word of the header, for those that two processes meet at.
    #[must_use]
    pub fn half(&self, offset: usize) -> Option<&AtomicU32> {
        self.word(offset).map(|Word(word)| {
            // SAFETY: the lower half of a little-endian word comes first, and all uses of it are of this type.
            unsafe { &*core::ptr::from_ref(word).cast::<AtomicU32>() }
        })
    }

    /// Adds a segment: the address of its first buffer and their number. One thread at a time.
    pub fn grow(&self) -> Option<(usize, usize)> {
        let buffers = self.word(layout::header::BUFFERS)?;
        let segment = self.segments.load(Ordering::Relaxed);
        let (first, count) = if segment == 0 {
            // Mapped with the header.
            (self.header.load(Ordering::Acquire) as usize + layout::HEADER_BYTES, FIRST)
        } else {
            let offset = layout::HEADER_BYTES as u64 + buffers.get() * layout::BUFFER_BYTES as u64;
            let file = file::File::open(self.path(), libc::O_RDWR, 0).ok()?;
            let bytes = |count| count * layout::BUFFER_BYTES;
            let fits = |count: &usize| file.allocate(offset, bytes(*count) as u64).is_ok();
            let count = [LATER, LATER / 2, LATER / 4, 1].into_iter().find(fits)?;
            (memory::map_shared(file.fd(), offset as usize, bytes(count)).ok()? as usize, count)
        };
        buffers.add(count as u64);
        self.segments.store(segment + 1, Ordering::Relaxed);
        Some((first, count))
    }

    /// Removes the file's name; the memory stays.
    pub fn remove(&self) {
        if self.exists() {
            let _ = file::remove(self.path());
        }
    }
}

#[cfg(loom)]
impl SpoolFile {
    /// Has a header from now on, and no more.
    pub fn model(&self) {
        let header = memory::map_private(layout::HEADER_BYTES).expect("memory");
        self.header.store(header, Ordering::Release);
        use layout::header as h;
        for offset in [h::ROLE, h::BELL, h::ASLEEP, h::LEFT, h::RETURNED, h::WAITERS, h::POLLS, h::LAST_LOOK]
        {
            crate::sync::model::Touch::touch(self.half(offset).expect("a header"));
        }
    }
}

#[cfg(loom)]
impl crate::sync::model::Touch for SpoolFile {
    fn touch(&self) {
        self.header.touch();
        self.segments.touch();
        self.length.touch();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_spool_is_private_and_grows() {
        // SAFETY: valid when zero.
        let mut spool: SpoolFile = unsafe { core::mem::zeroed() };
        assert!(!spool.exists() && spool.grow().is_none());
        // SAFETY: nobody else has it.
        unsafe { spool.name(b"/tmp").and_then(|()| spool.create(7)) }.unwrap();
        let (first, count) = spool.grow().unwrap();
        assert_eq!((first % memory::PAGE, count), (0, FIRST));
        assert_eq!(spool.grow().unwrap().1, LATER);
        let path = std::path::PathBuf::from(spool.path().to_str().unwrap());
        let meta = std::fs::metadata(&path).unwrap();
        let bytes = layout::HEADER_BYTES + (FIRST + LATER) * layout::BUFFER_BYTES;
        assert_eq!(meta.len(), bytes as u64);
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&meta.permissions()) & 0o777, 0o600);
        spool.remove();
        assert!(!path.exists());
    }
}
