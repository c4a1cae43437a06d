//! The pool of buffers: a lock-free stack of free ones, growing as far as it may.
//!
//! The stack is Treiber's (R. K. Treiber, "Systems Programming: Coping with Parallelism", 1986). Buffers are page
//! aligned and addresses have 48 bits, so 28 bits of the head are left for a counter that makes a
//! head that went and came back look different (the ABA problem).

use super::buffer::Buffer;
use super::file::SpoolFile;
use crate::clock;
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::sys::signal::Blocked;
use crate::sys::{futex, memory, process, seal};
use core::time::Duration;
use memscope_shared::spool as layout;
use memscope_shared::spool::role;

/// Buffers that may be filled and waiting for the writer, beyond one for each thread: 6 MiB.
///
/// A model's pool makes none: it has those that it is given, so that threads come to wait for them.
const IN_FLIGHT: u64 = if cfg!(loom) { 0 } else { 96 };
/// Buffers beyond those of all threads that are enough for a while.
const FEW_IN_FLIGHT: u64 = 16;

/// All buffers of a process. Valid when all bytes are zero.
#[derive(Debug)]
pub struct Pool {
    head: AtomicU64,
    total: AtomicU64,
    owners: AtomicU64,
    /// Counts buffers that came back; waiters sleep on it.
    returned: AtomicU32,
    waiters: AtomicU32,
    growing: AtomicU32,
}

const ADDRESS: u64 = 0x0000_ffff_ffff_f000;

const fn pack(address: u64, count: u64) -> u64 {
    address | (count & 0xfff) | (count >> 12 & 0xffff) << 48
}

const fn count_of(head: u64) -> u64 {
    head & 0xfff | (head >> 48) << 12
}

impl Pool {
    /// A thread state that will hold a buffer has come (+1) or gone (-1): the limit follows.
    pub fn owners_changed(&self, by: i64) {
        self.owners.fetch_add(by as u64, Ordering::Relaxed);
    }

    /// A buffer was unmapped.
    pub fn gone(&self) {
        self.total.fetch_sub(1, Ordering::Relaxed);
        self.returned.fetch_add(1, Ordering::SeqCst);
    }

    fn pop(&self) -> Option<Buffer> {
        let mut head = self.head.load(Ordering::Acquire);
        loop {
            // SAFETY: only addresses of buffers are ever stored in `head`.
            let buffer = unsafe { Buffer::at((head & ADDRESS) as *mut u8) }?;
            let next = buffer.header().next.load(Ordering::Relaxed);
            let new = pack(next, count_of(head) + 1);
            match self.head.compare_exchange_weak(head, new, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some(buffer),
                Err(now) => head = now,
            }
        }
    }

    /// Takes a free buffer, or makes one if the limit allows it. `None`: wait for one. Who asks holds none (or goes without).
    pub fn take(&self, file: &SpoolFile) -> Option<Buffer> {
        self.pop().or_else(|| self.grow(file))
    }

    /// Gives a buffer back and wakes who waits for one.
    pub fn give(&self, buffer: Buffer) {
        buffer.header().stream.store(0, Ordering::Release);
        buffer.header().state.store(role::FREE, Ordering::Release);
        self.push(buffer);
        self.returned.fetch_add(1, Ordering::SeqCst);
        if self.waiters.load(Ordering::SeqCst) > 0 {
            futex::wake(&self.returned, 1);
        }
    }

    fn push(&self, buffer: Buffer) {
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            buffer.header().next.store(head & ADDRESS, Ordering::Relaxed);
            let new = pack(buffer.address() as u64, count_of(head) + 1);
            match self.head.compare_exchange_weak(head, new, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }

    /// What [`Pool::wait`] compares with.
    #[must_use]
    pub fn returns(&self) -> u32 {
        self.returned.load(Ordering::SeqCst)
    }

    /// Waits until a buffer has come back since `seen`, at most `timeout`.
    pub fn wait(&self, seen: u32, timeout: Duration) {
        self.waiters.fetch_add(1, Ordering::SeqCst);
        futex::wait(&self.returned, seen, timeout);
        // In a child that a handler has forked meanwhile, nobody waits.
        let _ =
            self.waiters.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |waiters| waiters.checked_sub(1));
    }

    /// Makes all buffers that the limit allows, as far as the file can grow.
    pub fn reserve(&self, file: &SpoolFile) {
        self.reserve_up_to(file, u64::MAX);
    }

    /// Makes buffers for all threads that there are, and a few in flight: the program may need what room there is in memory.
    pub fn reserve_few(&self, file: &SpoolFile) {
        self.reserve_up_to(file, self.owners.load(Ordering::Relaxed) + FEW_IN_FLIGHT);
    }

    fn reserve_up_to(&self, file: &SpoolFile, most: u64) {
        // In a child that a handler forks, they are another process's.
        let _undisturbed = Blocked::all();
        while self.total.load(Ordering::Relaxed) < most {
            let Some(buffer) = self.grow(file) else { return };
            if buffer.header().private.load(Ordering::Relaxed) == 1 {
                return self.push(buffer);
            }
            self.push(buffer);
        }
    }

    fn grow(&self, file: &SpoolFile) -> Option<Buffer> {
        if self.total.load(Ordering::Relaxed) >= IN_FLIGHT + self.owners.load(Ordering::Relaxed) {
            return None;
        }
        if seal::forbids() {
            // It can't grow, and a wait for another thread that grows it could not be interrupted by anything.
            return None;
        }
        // One thread grows the file at a time, undisturbed by signal handlers of its own that might wait for it, or fork: what is
        // new belongs to this process.
        let signals = Blocked::all();
        if self.growing.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_err() {
            drop(signals);
            let mut turns = process::Turns::default();
            while self.growing.load(Ordering::Relaxed) == 1 {
                if !turns.pass() {
                    // It won't come back: the file stays as it is.
                    return self.lone(file);
                }
            }
            return self.take(file);
        }
        let segment = file.grow();
        self.growing.store(0, Ordering::Release);
        if let Some((first, count)) = segment {
            self.total.fetch_add(count as u64, Ordering::Relaxed);
            for index in 1..count {
                // SAFETY: a segment holds `count` buffers, newly mapped for good.
                let buffer = unsafe { Buffer::at((first + index * layout::BUFFER_BYTES) as *mut u8) };
                buffer.into_iter().for_each(|buffer| self.push(buffer));
            }
            // SAFETY: as above.
            return unsafe { Buffer::at(first as *mut u8) };
        }
        // Who asks holds none, so one is in flight: it outlives the process, which a lone one would not.
        let shared = file.word(layout::header::BUFFERS).map_or(0, |buffers| buffers.get());
        let comes_back = shared > 0 && shared >= self.owners.load(Ordering::Relaxed);
        if comes_back { None } else { self.lone(file) }
    }

    /// A private buffer, because the file does not grow.
    fn lone(&self, file: &SpoolFile) -> Option<Buffer> {
        let buffer = self.private()?;
        // From here on records may be lost with the process, which its end is to say.
        if let Some(since) = file.word(layout::header::PRIVATE_SINCE).filter(|since| since.get() == 0) {
            since.set(clock::stamp());
        }
        Some(buffer)
    }

    /// A buffer of private memory: for the time before the spool exists, and where it can't grow.
    pub fn private(&self) -> Option<Buffer> {
        let address = memory::map_private(layout::BUFFER_BYTES).ok()?;
        self.total.fetch_add(1, Ordering::Relaxed);
        // SAFETY: newly mapped for good, page aligned.
        let buffer = unsafe { Buffer::at(address) }?;
        buffer.header().private.store(1, Ordering::Relaxed);
        Some(buffer)
    }
}

#[cfg(loom)]
impl Pool {
    /// Never grows from now on.
    pub fn stay(&self) {
        self.total.store(1 << 32, Ordering::Relaxed);
    }
}

#[cfg(loom)]
impl crate::sync::model::Touch for Pool {
    fn touch(&self) {
        [&self.head, &self.total, &self.owners].iter().for_each(|word| word.touch());
        [&self.returned, &self.waiters, &self.growing].iter().for_each(|word| word.touch());
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn heads_keep_address_and_count() {
        for count in [0, 1, 0xfff, 0x1000, 0xabcdef] {
            let head = pack(0x7fff_1234_5000, count);
            assert_eq!(head & ADDRESS, 0x7fff_1234_5000);
            assert_eq!(count_of(head), count);
        }
    }

    #[test]
    fn nobody_waits_for_ever_for_who_grows_it() {
        // SAFETY: valid when zero.
        let (pool, file): (Pool, SpoolFile) = unsafe { (core::mem::zeroed(), core::mem::zeroed()) };
        pool.growing.store(1, Ordering::Relaxed);
        let buffer = pool.take(&file).expect("a buffer after a while");
        assert_eq!(buffer.header().private.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn buffers_come_back_and_growth_has_a_limit() {
        // SAFETY: valid when zero.
        let (pool, file): (Pool, SpoolFile) = unsafe { (core::mem::zeroed(), core::mem::zeroed()) };
        let taken: Vec<_> = core::iter::from_fn(|| pool.take(&file)).collect();
        assert_eq!(taken.len() as u64, IN_FLIGHT);
        assert!(taken.iter().all(|buffer| buffer.header().private.load(Ordering::Relaxed) == 1));
        pool.give(taken[3]);
        pool.give(taken[5]);
        assert_eq!(pool.take(&file), Some(taken[5]));
        assert_eq!(pool.take(&file), Some(taken[3]));
        assert_eq!(pool.take(&file), None);
        pool.owners_changed(1);
        assert!(pool.take(&file).is_some());
    }
}
