//! The state of one recorded thread (and, one more each, of the signal handlers that interrupt its hooks).
//!
//! The owner alone uses the plain fields; the writer and other threads only the atomics. The memory is
//! wiped in a forked child: `cursor` and `limit` are 0 there, so the first event takes the slow path.

use crate::heap::map_wiped;
use crate::program::stack::{Miss, StackState};
use crate::spool::buffer::Buffer;
use crate::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering, compiler_fence};
use crate::sync::writes;
use crate::sys::memory;
use core::cell::UnsafeCell;
use core::ptr::{addr_of_mut, null_mut};
use memscope_shared::spool as layout;

/// Room at the end of a buffer that makes one check per event enough: a stack node (2 words) and an
/// event (4 words) fit behind the limit.
const SLACK: usize = 64;

/// How far ahead of the cursor a buffer's cache lines are fetched, in words: the writer's processor has read them
/// last, and stores to them would pile up behind one line after the other.
const AHEAD: usize = 32;

/// Begins to fetch the cache line that will be written soon, [`AHEAD`] of this place.
#[inline(always)]
fn fetch_ahead_of(place: *const u64) {
    // SAFETY: a hint to the processor, which ignores addresses where nothing is; all that have 64 bits know it.
    unsafe {
        core::arch::asm!(
            "prefetchw [{} + {}]",
            in(reg) place,
            const AHEAD * 8,
            options(readonly, nostack, preserves_flags)
        );
    }
}

/// What a buffer is replaced with where the kernel does not do it: what is written there is nobody's.
#[repr(align(4096))]
struct Nowhere(UnsafeCell<[u8; layout::BUFFER_BYTES]>);

// SAFETY: never read.
unsafe impl Sync for Nowhere {}

static NOWHERE: Nowhere = Nowhere(UnsafeCell::new([0; layout::BUFFER_BYTES]));

/// The state. Valid when all bytes are zero.
#[derive(Debug)]
#[repr(C)]
pub struct ThreadState {
    /// Address of the next word to write.
    pub cursor: usize,
    /// At or above it the slow path is due. Others store 0 here to call the thread.
    pub limit: AtomicUsize,
    /// The sp of the hook that is running, 0 while none is.
    pub guard: AtomicUsize,
    /// The buffer's words; 0 while there is no buffer.
    base: usize,
    /// The buffer that is being filled; 0 while there is none.
    pub buffer: AtomicUsize,
    /// Where the buffer's first word stands in the stream.
    position: u64,
    /// The stream; never 0 once the state is set up.
    pub stream: AtomicU32,
    /// The thread's number; 0 means "not set up" (new, or wiped by a fork).
    pub number: AtomicU32,
    /// The thread's id in the kernel; 0 once the state is free to be used again.
    pub tid: AtomicU32,
    /// 1 when the thread's destructors have run.
    pub ending: AtomicU32,
    /// 1 where a hook runs on it that was interrupted by a signal handler which then forked this process: nothing
    /// that it does is to be recorded.
    pub abandoned: AtomicU32,
    /// State for signal handlers that interrupt this one's hooks.
    pub nested: AtomicPtr<ThreadState>,
    /// The state that this one is nested in.
    pub outer: AtomicPtr<ThreadState>,
    next: AtomicPtr<ThreadState>,
    /// Words committed at the writer's last look, to tell idle threads.
    pub seen: AtomicU64,
    /// Name as last recorded; used by the writer only.
    pub name: [AtomicU64; 2],
    /// What the stack capture remembers.
    pub stack: StackState,
    /// How far the last look for a stack led that found none.
    pub miss: Miss,
    /// Where an allocator's own `operator new` runs: its address. Else 0.
    pub operator: usize,
}

impl ThreadState {
    /// Maps a new state.
    #[must_use]
    pub fn map() -> Option<*mut Self> {
        let state = map_wiped(size_of::<Self>()).map(<*mut u8>::cast::<Self>);
        #[cfg(loom)]
        state.into_iter().for_each(|state| {
            // SAFETY: newly mapped, and valid when zero.
            crate::sync::model::Touch::touch(unsafe { &*state });
        });
        state
    }

    /// The state after this one in the process's list.
    #[must_use]
    pub fn next(&self) -> *mut Self {
        self.next.load(Ordering::Acquire)
    }

    /// Puts the state into the process's list.
    ///
    /// # Safety
    /// `this` is a mapped state that is in no list.
    pub unsafe fn publish(this: *mut Self, list: &AtomicPtr<Self>) {
        let mut head = list.load(Ordering::Relaxed);
        loop {
            // SAFETY: mapped, as promised.
            unsafe { (*this).next.store(head, Ordering::Relaxed) };
            match list.compare_exchange_weak(head, this, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }

    /// Makes the owner's next event take the slow path.
    pub fn call(&self) {
        self.limit.store(0, Ordering::Release);
    }

    /// The buffer that is being filled, if any.
    #[must_use]
    pub fn filling(&self) -> Option<Buffer> {
        // SAFETY: only addresses of buffers (or 0) are stored here.
        unsafe { Buffer::at(self.buffer.load(Ordering::Acquire) as *mut u8) }
    }

    /// Continues in `buffer`, whose header is adopted and holds `filled` words already.
    ///
    /// # Safety
    /// The owner only.
    pub unsafe fn fill(this: *mut Self, buffer: Buffer, filled: usize) {
        // SAFETY: the owner alone uses the plain fields.
        unsafe {
            writes((&raw const (*this).cursor).cast(), 1);
            (*this).base = buffer.words() as usize;
            (*this).cursor = (*this).base + filled * 8;
            (*this).buffer.store(buffer.address(), Ordering::Release);
            Self::reset_limit(this);
        }
    }

    /// Gives the buffer away: the next event finds none.
    ///
    /// # Safety
    /// The owner only.
    pub unsafe fn leave_buffer(this: *mut Self) {
        // SAFETY: the owner alone uses the plain fields.
        unsafe {
            writes((&raw const (*this).cursor).cast(), 1);
            (*this).position += Self::filled(this) as u64;
            (*this).limit.store(0, Ordering::Relaxed);
            (*this).cursor = 0;
            (*this).base = 0;
            (*this).buffer.store(0, Ordering::Release);
        }
    }

    /// Where the buffer's first word (or, without a buffer, the next word) stands in the stream.
    ///
    /// # Safety
    /// The owner only.
    #[must_use]
    pub unsafe fn position(this: *mut Self) -> u64 {
        // SAFETY: the owner alone uses the plain fields.
        unsafe { (*this).position }
    }

    /// Words in the buffer.
    ///
    /// # Safety
    /// The owner only.
    #[must_use]
    pub unsafe fn filled(this: *mut Self) -> usize {
        // SAFETY: the owner alone uses the plain fields.
        unsafe { ((*this).cursor - (*this).base) / 8 }
    }

    /// Words still free in the buffer.
    ///
    /// # Safety
    /// The owner only.
    #[must_use]
    pub unsafe fn room(this: *mut Self) -> usize {
        // SAFETY: the owner alone uses the plain fields.
        unsafe { if (*this).base == 0 { 0 } else { layout::BUFFER_WORDS - Self::filled(this) } }
    }

    /// Sets the limit by the buffer.
    ///
    /// # Safety
    /// The owner only.
    pub unsafe fn reset_limit(this: *mut Self) {
        // SAFETY: the owner alone uses the plain fields.
        unsafe {
            let end = (*this).base + layout::BUFFER_WORDS * 8;
            (*this).limit.store(if (*this).base == 0 { 0 } else { end - SLACK }, Ordering::Relaxed);
        }
    }

    /// True where the slow path is due before the next record.
    ///
    /// # Safety
    /// The owner only.
    #[inline(always)]
    #[must_use]
    pub unsafe fn is_due(this: *mut Self) -> bool {
        // SAFETY: the owner alone uses the plain fields.
        unsafe { (*this).cursor >= (*this).limit.load(Ordering::Relaxed) }
    }

    /// Writes the words of one record and commits them. The caller has made sure of room.
    ///
    /// # Safety
    /// The owner only, with at least `N` words of room.
    #[inline(always)]
    pub unsafe fn put<const N: usize>(this: *mut Self, words: [u64; N]) {
        // SAFETY: as promised by the caller.
        unsafe { Self::put_at(this, (*this).cursor, words) }
    }

    /// As [`ThreadState::put`], where the cursor is known.
    #[inline(always)]
    unsafe fn put_at<const N: usize>(this: *mut Self, cursor: usize, words: [u64; N]) {
        // SAFETY: there is room for the words, and the owner alone writes behind `committed`. The commit
        // comes last: other processors and the program's death both see whole records only.
        unsafe {
            let at = cursor as *mut u64;
            fetch_ahead_of(at);
            writes(at, N);
            for (k, word) in words.into_iter().enumerate() {
                at.add(k).write(word);
            }
            Self::commit_to(this, cursor + N * 8);
        }
    }

    /// Writes one record, and true; false where the slow path is due before.
    ///
    /// # Safety
    /// The owner only; a record of up to 4 words.
    #[inline(always)]
    #[must_use]
    pub unsafe fn try_put<const N: usize>(this: *mut Self, words: [u64; N]) -> bool {
        const { assert!(N * 8 <= SLACK) };
        // SAFETY: as promised; below the limit there is room.
        unsafe {
            let cursor = (*this).cursor;
            if cursor >= (*this).limit.load(Ordering::Relaxed) {
                return false;
            }
            Self::put_at(this, cursor, words);
        }
        true
    }

    /// Commits `words` that were written at the cursor.
    ///
    /// # Safety
    /// The owner only; that many words were written at the cursor.
    #[inline(always)]
    pub unsafe fn commit(this: *mut Self, words: usize) {
        // SAFETY: as promised.
        unsafe { Self::commit_to(this, (*this).cursor + words * 8) }
    }

    #[inline(always)]
    unsafe fn commit_to(this: *mut Self, cursor: usize) {
        // SAFETY: all words before the cursor were written; the buffer's header lies right before its words.
        unsafe {
            writes((&raw const (*this).cursor).cast(), 1);
            (*this).cursor = cursor;
            let header = ((*this).base - layout::BUFFER_HEADER_BYTES) as *const crate::spool::buffer::Header;
            (*header).committed.store(((cursor - (*this).base) / 8) as u64, Ordering::Release);
        }
    }

    /// Where to write a record of up to [`ThreadState::room`] words before [`ThreadState::commit`].
    ///
    /// # Safety
    /// The owner only.
    #[must_use]
    pub unsafe fn write_at(this: *mut Self) -> *mut u64 {
        // SAFETY: the owner alone uses the plain fields.
        unsafe { (*this).cursor as *mut u64 }
    }

    /// The stack capture's part.
    ///
    /// # Safety
    /// The owner only.
    #[inline(always)]
    #[must_use]
    pub unsafe fn stack(this: *mut Self) -> *mut StackState {
        // SAFETY: the state is mapped.
        unsafe { addr_of_mut!((*this).stack) }
    }

    /// Sets the guard, visible to signal handlers of this thread at once.
    ///
    /// # Safety
    /// The owner only.
    #[inline(always)]
    pub unsafe fn set_guard(this: *mut Self, value: usize) {
        compiler_fence(Ordering::SeqCst);
        // SAFETY: the state is mapped.
        unsafe { (*this).guard.store(value, Ordering::Relaxed) };
        compiler_fence(Ordering::SeqCst);
    }

    /// All memory that belongs to the state: start and size of its mappings.
    ///
    /// # Safety
    /// The owner only.
    #[must_use]
    pub unsafe fn memory(this: *mut Self) -> [(*mut u8, usize); 2] {
        // SAFETY: as promised.
        unsafe { [(this.cast(), size_of::<Self>()), StackState::memory(Self::stack(this))] }
    }

    /// Says whether a forked child finds the state as it is, or wiped.
    ///
    /// # Safety
    /// The owner only; `fate` is one of `MADV_KEEPONFORK` and `MADV_WIPEONFORK`.
    pub unsafe fn set_fate(this: *mut Self, fate: i32) {
        // SAFETY: as promised; the advice discards nothing of this process.
        unsafe {
            for (start, bytes) in Self::memory(this) {
                if bytes > 0 {
                    let _ = memory::advise(start, bytes, fate);
                }
            }
        }
    }

    /// In a forked child: what is still written goes to memory of its own, not into the parent's buffer.
    ///
    /// # Safety
    /// The owner only, of a state that is given up next.
    pub unsafe fn part(this: *mut Self) {
        // SAFETY: as promised; the buffer is mapped, nobody but the parent needs its contents, and where it can't be replaced
        // there is another place of the same size.
        unsafe {
            let Some(buffer) = (*this).filling() else { return };
            if memory::replace(buffer.address() as *mut u8, layout::BUFFER_BYTES).is_err() {
                (*this).base = NOWHERE.0.get() as usize + layout::BUFFER_HEADER_BYTES;
                (*this).cursor = (*this).base;
                (*this).buffer.store(NOWHERE.0.get() as usize, Ordering::Relaxed);
            }
        }
    }

    /// Gives the state up: the hook that runs on it is the parent's.
    ///
    /// # Safety
    /// The owner only.
    pub unsafe fn abandon(this: *mut Self) {
        // SAFETY: the state is mapped.
        unsafe {
            (*this).abandoned.store(1, Ordering::Relaxed);
            (*this).limit.store(0, Ordering::Relaxed);
        }
    }

    /// Prepares a state for its next thread: the stream goes on, the thread is another one.
    ///
    /// # Safety
    /// Nobody owns the state.
    pub unsafe fn clear_owner(this: *mut Self) {
        // SAFETY: nobody else uses it.
        unsafe {
            (*this).guard.store(0, Ordering::Relaxed);
            (*this).ending.store(0, Ordering::Relaxed);
            (*this).name[0].store(0, Ordering::Relaxed);
            (*this).name[1].store(0, Ordering::Relaxed);
            (*this).number.store(0, Ordering::Relaxed);
        }
    }

    /// The null pointer of this type.
    #[must_use]
    pub const fn none() -> *mut Self {
        null_mut()
    }
}

#[cfg(loom)]
impl crate::sync::model::Touch for ThreadState {
    fn touch(&self) {
        [&self.limit, &self.guard, &self.buffer].iter().for_each(|word| word.touch());
        [&self.stream, &self.number, &self.tid, &self.ending, &self.abandoned]
            .iter()
            .for_each(|word| word.touch());
        [&self.nested, &self.outer, &self.next].iter().for_each(|word| word.touch());
        self.seen.touch();
        self.name.touch();
    }
}
