//! One buffer: who owns it and how far it is filled.
//!
//! ```text
//! free -> owned by a thread (filled) -> queued -> taken by the writer -> free
//! ```
//!
//! Where `memscope-cli` drains instead of a writer of ours, its `state` says the same to another process
//! (`memscope_shared::spool::role`).
//!
//! A thread alone writes `committed`, the writer alone writes `taken`. What lies between the two is to be
//! written to the trace, whether the buffer is queued or still being filled.

use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::sync::reads;
use core::ptr::NonNull;
use memscope_shared::record::{Records, is_call};
use memscope_shared::spool as layout;
use memscope_shared::spool::role;

/// The header; its fields stand where `memscope_shared::spool::buffer` says.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Header {
    /// The stream it belongs to; 0 while free.
    pub stream: AtomicU64,
    /// The thread that wrote the first record.
    pub thread: AtomicU64,
    /// Position of its first word in the stream.
    pub position: AtomicU64,
    /// Words complete.
    pub committed: AtomicU64,
    /// Words written to the trace.
    pub taken: AtomicU64,
    /// Link of the free list, or of the list of those left to a drainer.
    pub next: AtomicU64,
    /// 1 where the buffer is private memory, that dies with the process.
    pub private: AtomicU64,
    /// How far it is, for a drainer.
    pub state: AtomicU32,
    unused: AtomicU32,
}

const _: () = {
    assert!(size_of::<Header>() == layout::BUFFER_HEADER_BYTES);
    assert!(core::mem::offset_of!(Header, stream) == layout::buffer::STREAM);
    assert!(core::mem::offset_of!(Header, thread) == layout::buffer::THREAD);
    assert!(core::mem::offset_of!(Header, position) == layout::buffer::POSITION);
    assert!(core::mem::offset_of!(Header, committed) == layout::buffer::COMMITTED);
    assert!(core::mem::offset_of!(Header, taken) == layout::buffer::TAKEN);
    assert!(core::mem::offset_of!(Header, state) == layout::buffer::STATE);
};

/// A buffer of the pool. Buffers are never unmapped while the process lives, so a `Buffer` stays valid;
/// what may be done with it depends on whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer(NonNull<Header>);

// SAFETY: the header consists of atomics, and the words behind it are only written by the owning thread
// and only read by the writer below `committed`.
unsafe impl Send for Buffer {}
// SAFETY: as above.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// The buffer at an address.
    ///
    /// # Safety
    /// `address` must be null or start [`layout::BUFFER_BYTES`] of memory, page aligned, mapped for good, that
    /// are used as a buffer only.
    #[must_use]
    pub unsafe fn at(address: *mut u8) -> Option<Self> {
        NonNull::new(address.cast()).map(Self)
    }

    /// Its address; page aligned.
    #[must_use]
    pub fn address(self) -> usize {
        self.0.as_ptr() as usize
    }

    /// Its header.
    #[must_use]
    pub const fn header(&self) -> &Header {
        // SAFETY: mapped for good (see `at`), and all its fields are atomics.
        unsafe { self.0.as_ref() }
    }

    /// Its first word.
    #[must_use]
    pub fn words(self) -> *mut u64 {
        (self.address() + layout::BUFFER_HEADER_BYTES) as *mut u64
    }

    /// The address behind its last word.
    #[must_use]
    pub fn end(self) -> usize {
        self.address() + layout::BUFFER_BYTES
    }

    /// The words that are complete and not yet in the trace, with the position of the first in the stream.
    #[must_use]
    pub fn untaken(&self) -> (u64, &[u64]) {
        let header = self.header();
        let committed = header.committed.load(Ordering::Acquire).min(layout::BUFFER_WORDS as u64);
        let taken = header.taken.load(Ordering::Relaxed).min(committed);
        let position = header.position.load(Ordering::Relaxed) + taken;
        reads(self.words().wrapping_add(taken as usize), (committed - taken) as usize);
        // SAFETY: words below `committed` are never written again before the writer, who alone calls
        // this, has taken them and given the buffer back.
        let words = unsafe {
            core::slice::from_raw_parts(self.words().add(taken as usize), (committed - taken) as usize)
        };
        (position, words)
    }

    /// Whether it is its stream's first one, and says of no call. (Its thread may go on writing it.)
    #[must_use]
    pub fn says_of_no_call(&self) -> bool {
        let committed = self.header().committed.load(Ordering::Acquire).min(layout::BUFFER_WORDS as u64);
        // SAFETY: words below `committed` are never written again before the buffer is another stream's.
        let words = unsafe { core::slice::from_raw_parts(self.words(), committed as usize) };
        self.header().position.load(Ordering::Relaxed) == 0
            && !Records::new(words).any(|record| is_call(record[0]))
    }

    /// Makes the buffer the next one of a stream.
    pub fn adopt(&self, stream: u64, thread: u64, position: u64) {
        let header = self.header();
        header.committed.store(0, Ordering::Relaxed);
        header.taken.store(0, Ordering::Relaxed);
        header.position.store(position, Ordering::Relaxed);
        header.thread.store(thread, Ordering::Relaxed);
        // A drainer that finds this finds all of the above, too.
        header.state.store(role::FILLING, Ordering::Release);
        // Last: from here on a reader of the file counts the buffer as in use.
        header.stream.store(stream, Ordering::Release);
    }
}

#[cfg(loom)]
impl crate::sync::model::Touch for Buffer {
    fn touch(&self) {
        let h = self.header();
        [&h.stream, &h.thread, &h.position, &h.committed, &h.taken, &h.next, &h.private]
            .iter()
            .for_each(|word| word.touch());
        h.state.touch();
    }
}
