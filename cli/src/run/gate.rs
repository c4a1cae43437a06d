//! What we and the child that is to become the program say to each other: memory that both share, and no descriptor, since
//! the program may be allowed no more than four.
//!
//! ```text
//! us      hold `path` ─ fork ── make the directory ─ write its path, let go of `path` ── take `becoming` ── read the error
//!                        \                                        |                            ^
//! child                   hold `becoming` ── take `path` ─────────+── execve ── (fails) ───────+
//! ```
//!
//! Both are robust mutexes: the kernel lets go of those of a process that ends, and of one that becomes another program. So taking
//! `becoming` says that either has happened, and taking `path` that we have written it or are gone.

use std::cell::UnsafeCell;
use std::io;
use std::mem;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicUsize, Ordering};

use rustix::time::{ClockId, clock_gettime};

/// Longest path; longer ones the kernel refuses.
const MOST: usize = libc::PATH_MAX as usize;

/// The shared memory. Zeros are a gate before its mutexes are made.
#[repr(C)]
struct Shared {
    path: UnsafeCell<libc::pthread_mutex_t>,
    becoming: UnsafeCell<libc::pthread_mutex_t>,
    /// The child holds `becoming`.
    waits: AtomicU32,
    /// The path's bytes; whoever holds `path` may use them.
    bytes: UnsafeCell<[u8; MOST]>,
    length: AtomicUsize,
    /// `errno` of the child.
    error: AtomicI32,
}

/// One side of a gate. Closed when dropped.
pub struct Gate(NonNull<Shared>);

impl Gate {
    /// Makes a gate whose `path` the calling thread holds.
    pub fn new() -> io::Result<Self> {
        let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        // SAFETY: new memory, wherever there is room.
        let memory = unsafe { libc::mmap(ptr::null_mut(), size_of::<Shared>(), access, kind, -1, 0) };
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let gate = Self(NonNull::new(memory.cast()).ok_or(io::ErrorKind::OutOfMemory)?);
        robust(&gate.shared().path)?;
        robust(&gate.shared().becoming)?;
        take(&gate.shared().path)?;
        Ok(gate)
    }

    const fn shared(&self) -> &Shared {
        // SAFETY: mapped for as long as this is there; others only see atomics, and cells by mutex.
        unsafe { self.0.as_ref() }
    }

    /// The child's: waits for the path; `None` when there is nothing to be run any more.
    pub fn wait_for_path(&self) -> Option<Vec<u8>> {
        let shared = self.shared();
        take(&shared.becoming).ok()?;
        shared.waits.store(1, Ordering::Release);
        // An error says that the parent has gone.
        if take(&shared.path).ok()? == Before::Died {
            return None;
        }
        let length = shared.length.load(Ordering::Relaxed);
        // SAFETY: we hold `path`.
        let path = unsafe { &*shared.bytes.get() }.get(..length).filter(|path| !path.is_empty());
        path.map(<[u8]>::to_vec)
    }

    /// The child's: why it did not become the program.
    pub fn fail(&self, error: &io::Error) {
        self.shared().error.store(error.raw_os_error().unwrap_or(libc::EINVAL), Ordering::Release);
    }

    /// Tells the path, or by an empty one that there is nothing to be run; then waits until the child has become the program
    /// or has ended. `lives`: whether the child does.
    pub fn open(&self, path: &[u8], mut lives: impl FnMut() -> bool) -> io::Result<()> {
        let shared = self.shared();
        // SAFETY: we hold `path`.
        let bytes = unsafe { &mut *shared.bytes.get() };
        let room = bytes.get_mut(..path.len()).ok_or(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
        let room = room.map(|room| room.copy_from_slice(path));
        shared.length.store(if room.is_ok() { path.len() } else { 0 }, Ordering::Relaxed);
        let_go(&shared.path);
        while shared.waits.load(Ordering::Acquire) == 0 && lives() {
            std::thread::sleep(std::time::Duration::from_micros(100));
        }
        // Where a kernel lets go of nothing, the child's end says it.
        while lives() {
            if take_soon(&shared.becoming)?.is_some() {
                let_go(&shared.becoming);
                break;
            }
        }
        room?;
        match shared.error.load(Ordering::Acquire) {
            0 => Ok(()),
            number => Err(io::Error::from_raw_os_error(number)),
        }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, and nobody has references to it.
        unsafe { libc::munmap(self.0.as_ptr().cast(), size_of::<Shared>()) };
    }
}

/// What became of a mutex's last owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    LetGo,
    Died,
}

fn checked(number: i32) -> io::Result<()> {
    if number == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(number)) }
}

/// Makes a mutex that processes can share, and that is let go of with its owner's end.
fn robust(mutex: &UnsafeCell<libc::pthread_mutex_t>) -> io::Result<()> {
    // SAFETY: the attributes are initialised by the first call, the mutex by the last; nobody else knows either.
    unsafe {
        let mut attributes = mem::zeroed();
        checked(libc::pthread_mutexattr_init(&raw mut attributes))?;
        checked(libc::pthread_mutexattr_setpshared(&raw mut attributes, libc::PTHREAD_PROCESS_SHARED))?;
        checked(libc::pthread_mutexattr_setrobust(&raw mut attributes, libc::PTHREAD_MUTEX_ROBUST))?;
        checked(libc::pthread_mutex_init(mutex.get(), &raw const attributes))
    }
}

fn take(mutex: &UnsafeCell<libc::pthread_mutex_t>) -> io::Result<Before> {
    // SAFETY: made by `robust`.
    taken(mutex, unsafe { libc::pthread_mutex_lock(mutex.get()) })
}

/// The same; `None` where that takes more than a second.
fn take_soon(mutex: &UnsafeCell<libc::pthread_mutex_t>) -> io::Result<Option<Before>> {
    let now = clock_gettime(ClockId::Realtime);
    let until = libc::timespec { tv_sec: now.tv_sec + 1, tv_nsec: now.tv_nsec };
    // SAFETY: made by `robust`; the time is only read.
    match unsafe { libc::pthread_mutex_timedlock(mutex.get(), &raw const until) } {
        libc::ETIMEDOUT => Ok(None),
        number => taken(mutex, number).map(Some),
    }
}

/// What an attempt to take a mutex has come to.
fn taken(mutex: &UnsafeCell<libc::pthread_mutex_t>, number: i32) -> io::Result<Before> {
    match number {
        0 => Ok(Before::LetGo),
        libc::EOWNERDEAD => {
            // SAFETY: we hold it.
            checked(unsafe { libc::pthread_mutex_consistent(mutex.get()) })?;
            Ok(Before::Died)
        }
        number => Err(io::Error::from_raw_os_error(number)),
    }
}

fn let_go(mutex: &UnsafeCell<libc::pthread_mutex_t>) {
    // SAFETY: the calling thread holds it.
    unsafe { libc::pthread_mutex_unlock(mutex.get()) };
}
