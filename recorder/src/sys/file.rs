//! Files and directories. Paths are bytes with a final NUL, so nothing is copied or allocated.

use super::signal::Blocked;
use super::{Errno, seal, syscall};
use core::ffi::CStr;
use core::sync::atomic::{AtomicBool, Ordering};

/// Our thread has a table of descriptors of its own.
static OWN_TABLE: AtomicBool = AtomicBool::new(false);

/// An open descriptor, closed when dropped.
#[derive(Debug)]
pub struct File(i32);

/// What tells a file from another one: the descriptor's number may have been closed by the program and
/// given to a file of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    device: u64,
    inode: u64,
}

/// Mode and owners of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Kind and rights, as in `st_mode`.
    pub mode: u32,
    /// The user whose it is.
    pub uid: u32,
    /// The group whose it is.
    pub gid: u32,
}

impl Status {
    /// A directory that is this user's, and that nobody else may write to.
    #[must_use]
    pub const fn is_private_directory(&self, uid: u32) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFDIR && self.uid == uid && self.mode & 0o022 == 0
    }
}

impl File {
    /// Opens a file. `O_CLOEXEC` and `O_NOFOLLOW` are always set.
    pub fn open(path: &CStr, flags: i32, mode: u32) -> Result<Self, Errno> {
        Self::open_briefly(path, flags, mode)?.moved_up()
    }

    /// The same for a moment in which no other thread opens files, or closes what isn't its own.
    pub fn open_briefly(path: &CStr, flags: i32, mode: u32) -> Result<Self, Errno> {
        let flags = flags | libc::O_CLOEXEC | libc::O_NOFOLLOW;
        let args = [libc::AT_FDCWD as usize, path.as_ptr() as usize, flags as usize, mode as usize, 0, 0];
        // SAFETY: `path` is a valid C string for the whole call.
        retry(|| unsafe { syscall(libc::SYS_openat, args) }).map(|fd| Self(fd as i32))
    }

    /// Opens a file for reading, through symbolic links too.
    pub fn read_only(path: &CStr) -> Result<Self, Errno> {
        let flags = libc::O_RDONLY | libc::O_CLOEXEC;
        let args = [libc::AT_FDCWD as usize, path.as_ptr() as usize, flags as usize, 0, 0, 0];
        // SAFETY: `path` is a valid C string for the whole call.
        retry(|| unsafe { syscall(libc::SYS_openat, args) }).map(|fd| Self(fd as i32))
    }

    /// Opens for reading what stands at `path`, beginning at a directory that is open as `at`.
    pub fn read_only_at(at: i32, path: &CStr) -> Result<Self, Errno> {
        let flags = libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK;
        let args = [at as usize, path.as_ptr() as usize, flags as usize, 0, 0, 0];
        // SAFETY: `path` is a valid C string for the whole call.
        retry(|| unsafe { syscall(libc::SYS_openat, args) }).map(|fd| Self(fd as i32))
    }

    /// Moves a descriptor that is to stay open out of the low numbers that programs count on
    /// ("the next `open` returns 3"). Where the limit forbids it, it stays where it is.
    fn moved_up(self) -> Result<Self, Errno> {
        for least in [800, 200] {
            let args = [self.0 as usize, libc::F_DUPFD_CLOEXEC as usize, least, 0, 0, 0];
            // SAFETY: duplicating a descriptor touches no memory.
            if let Ok(fd) = unsafe { syscall(libc::SYS_fcntl, args) } {
                return Ok(Self(fd as i32));
            }
        }
        Ok(self)
    }

    /// The descriptor's number.
    #[must_use]
    pub const fn fd(&self) -> i32 {
        self.0
    }

    /// True where it lies among the low numbers that programs count on.
    #[must_use]
    pub const fn is_low(&self) -> bool {
        self.0 < 200
    }

    /// Gives the descriptor up without closing it (somebody else has closed or taken its number).
    pub const fn forget(self) {
        core::mem::forget(self);
    }

    /// Which file this is; `ENOENT` where no directory has it any more.
    pub fn identity(&self) -> Result<Identity, Errno> {
        // SAFETY: `stat` is plain data, for which zero bytes are valid.
        let mut stat: libc::stat = unsafe { core::mem::zeroed() };
        // SAFETY: `stat` is writable and of the size that the kernel writes.
        unsafe { syscall(libc::SYS_fstat, [self.0 as usize, &raw mut stat as usize, 0, 0, 0, 0]) }?;
        if stat.st_nlink == 0 {
            return Err(Errno::ENOENT);
        }
        Ok(Identity { device: stat.st_dev, inode: stat.st_ino })
    }

    /// Its length.
    pub fn length(&self) -> Result<u64, Errno> {
        // SAFETY: `stat` is plain data, for which zero bytes are valid.
        let mut stat: libc::stat = unsafe { core::mem::zeroed() };
        // SAFETY: `stat` is writable and of the size that the kernel writes.
        unsafe { syscall(libc::SYS_fstat, [self.0 as usize, &raw mut stat as usize, 0, 0, 0, 0]) }?;
        Ok(stat.st_size as u64)
    }

    /// Whether somebody holds a lock on its first byte through another opening of the file. The kernel takes the lock
    /// away when the last who has that opening is dead.
    pub fn is_locked(&self) -> Result<bool, Errno> {
        // SAFETY: `flock` is plain data, for which zero bytes are valid.
        let mut lock: libc::flock = unsafe { core::mem::zeroed() };
        lock.l_type = libc::F_WRLCK as i16;
        lock.l_len = 1;
        let args = [self.0 as usize, libc::F_OFD_GETLK as usize, &raw mut lock as usize, 0, 0, 0];
        // SAFETY: `lock` is readable and writable, and of the size that the kernel uses.
        unsafe { syscall(libc::SYS_fcntl, args) }?;
        Ok(lock.l_type != libc::F_UNLCK as i16)
    }

    /// Its mode and who owns it.
    pub fn status(&self) -> Result<Status, Errno> {
        // SAFETY: `stat` is plain data, for which zero bytes are valid.
        let mut stat: libc::stat = unsafe { core::mem::zeroed() };
        // SAFETY: `stat` is writable and of the size that the kernel writes.
        unsafe { syscall(libc::SYS_fstat, [self.0 as usize, &raw mut stat as usize, 0, 0, 0, 0]) }?;
        Ok(Status { mode: stat.st_mode, uid: stat.st_uid, gid: stat.st_gid })
    }

    /// True where its file system is mounted so that programs gain no rights by being run.
    #[must_use]
    pub fn on_nosuid_mount(&self) -> bool {
        // SAFETY: `statfs` is plain data, for which zero bytes are valid.
        let mut stat: libc::statfs64 = unsafe { core::mem::zeroed() };
        let args = [self.0 as usize, &raw mut stat as usize, 0, 0, 0, 0];
        // SAFETY: `stat` is writable and of the size that the kernel writes.
        let asked = unsafe { syscall(libc::SYS_fstatfs, args) };
        asked.is_ok() && stat.f_flags as u64 & libc::ST_NOSUID != 0
    }

    /// True where the file has this extended attribute.
    #[must_use]
    pub fn has_attribute(&self, name: &CStr) -> bool {
        let args = [self.0 as usize, name.as_ptr() as usize, 0, 0, 0, 0];
        // SAFETY: `name` is a valid C string; with size 0 the kernel writes nothing.
        unsafe { syscall(libc::SYS_fgetxattr, args) }.is_ok_and(|length| length > 0)
    }

    /// Reads up to `into.len()` bytes from `offset` on.
    pub fn read_at(&self, into: &mut [u8], offset: u64) -> Result<usize, Errno> {
        let args = [self.0 as usize, into.as_mut_ptr() as usize, into.len(), offset as usize, 0, 0];
        // SAFETY: `into` is writable for its length.
        retry(|| unsafe { syscall(libc::SYS_pread64, args) })
    }

    /// Gives the file just these rights, whatever the program's umask took away.
    pub fn restrict(&self, mode: u32) -> Result<(), Errno> {
        if self.status()?.mode & 0o7777 == mode {
            return Ok(());
        }
        // SAFETY: no memory is involved.
        unsafe { syscall(libc::SYS_fchmod, [self.0 as usize, mode as usize, 0, 0, 0, 0]) }.map(drop)
    }

    /// Reads up to `into.len()` bytes.
    pub fn read(&self, into: &mut [u8]) -> Result<usize, Errno> {
        let args = [self.0 as usize, into.as_mut_ptr() as usize, into.len(), 0, 0, 0];
        // SAFETY: `into` is writable for its length.
        retry(|| unsafe { syscall(libc::SYS_read, args) })
    }

    /// Reads until `into` is full or the file ends.
    pub fn read_full(&self, into: &mut [u8]) -> Result<usize, Errno> {
        let mut done = 0;
        while done < into.len() {
            match self.read(&mut into[done..])? {
                0 => break,
                n => done += n,
            }
        }
        Ok(done)
    }

    /// Writes all of `bytes` at `offset`; a short write is continued.
    pub fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), Errno> {
        without_signals(|| self.write_all(bytes, offset))
    }

    fn write_all(&self, mut bytes: &[u8], mut offset: u64) -> Result<(), Errno> {
        while !bytes.is_empty() {
            let args = [self.0 as usize, bytes.as_ptr() as usize, bytes.len(), offset as usize, 0, 0];
            // SAFETY: `bytes` is readable for its length.
            let n = retry(|| unsafe { syscall(libc::SYS_pwrite64, args) })?;
            if n == 0 {
                return Err(Errno::ENOSPC);
            }
            bytes = &bytes[n..];
            offset += n as u64;
        }
        Ok(())
    }

    /// Allocates the blocks of a range, so that touching them through a mapping cannot fail.
    pub fn allocate(&self, offset: u64, len: u64) -> Result<(), Errno> {
        let args = [self.0 as usize, 0, offset as usize, len as usize, 0, 0];
        // SAFETY: no memory is involved.
        without_signals(|| retry(|| unsafe { syscall(libc::SYS_fallocate, args) }).map(drop))
    }

    /// Cuts or extends the file.
    pub fn set_len(&self, len: u64) -> Result<(), Errno> {
        // SAFETY: no memory is involved; mappings of ours are never cut.
        retry(|| unsafe { syscall(libc::SYS_ftruncate, [self.0 as usize, len as usize, 0, 0, 0, 0]) })
            .map(drop)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // SAFETY: the descriptor is ours.
        let _ = unsafe { syscall(libc::SYS_close, [self.0 as usize, 0, 0, 0, 0, 0]) };
    }
}

/// The limit of file sizes raises SIGXFSZ beside the error, a pipe without a reader SIGPIPE: they must not reach the program.
fn without_signals(call: impl FnOnce() -> Result<(), Errno>) -> Result<(), Errno> {
    let blocked = Blocked::all();
    let result = call();
    match result {
        Err(Errno(libc::EFBIG)) => blocked.discard(libc::SIGXFSZ),
        Err(Errno(libc::EPIPE)) => blocked.discard(libc::SIGPIPE),
        _ => {}
    }
    result
}

fn retry(mut call: impl FnMut() -> Result<usize, Errno>) -> Result<usize, Errno> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            other => return other,
        }
    }
}

/// Writes a folder of `/proc` and a number behind it, with a final NUL, as far as there is room.
pub fn numbered(folder: &[u8], number: u32, into: &mut [u8]) {
    let mut digits = [0; 10];
    let (mut rest, mut count) = (number, 0);
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        (rest, count) = (rest / 10, count + 1);
        if rest == 0 {
            break;
        }
    }
    let parts = folder.iter().chain(&digits[digits.len() - count..]).chain(b"\0");
    into.iter_mut().zip(parts).for_each(|(slot, byte)| *slot = *byte);
}

/// Makes a directory.
pub fn make_directory(path: &CStr, mode: u32) -> Result<(), Errno> {
    // SAFETY: `path` is a valid C string for the whole call.
    unsafe { syscall(libc::SYS_mkdir, [path.as_ptr() as usize, mode as usize, 0, 0, 0, 0]) }.map(drop)
}

/// Makes a symbolic link at `path`.
pub fn make_link(target: &CStr, path: &CStr) -> Result<(), Errno> {
    // SAFETY: both are valid C strings for the whole call.
    unsafe { syscall(libc::SYS_symlink, [target.as_ptr() as usize, path.as_ptr() as usize, 0, 0, 0, 0]) }
        .map(drop)
}

/// Mode and owners of what stands at `path`, which is not followed where it is a symbolic link.
pub fn status_of(path: &CStr) -> Result<Status, Errno> {
    // SAFETY: `stat` is plain data, for which zero bytes are valid.
    let mut stat: libc::stat = unsafe { core::mem::zeroed() };
    // SAFETY: `path` is a valid C string, `stat` writable and of the size that the kernel writes.
    unsafe { syscall(libc::SYS_lstat, [path.as_ptr() as usize, &raw mut stat as usize, 0, 0, 0, 0]) }?;
    Ok(Status { mode: stat.st_mode, uid: stat.st_uid, gid: stat.st_gid })
}

/// The inode of what `path` leads to.
pub fn inode_of(path: &CStr) -> Result<u64, Errno> {
    // SAFETY: `stat` is plain data, for which zero bytes are valid.
    let mut stat: libc::stat = unsafe { core::mem::zeroed() };
    // SAFETY: `path` is a valid C string, `stat` writable and of the size that the kernel writes.
    unsafe { syscall(libc::SYS_stat, [path.as_ptr() as usize, &raw mut stat as usize, 0, 0, 0, 0]) }?;
    Ok(stat.st_ino)
}

/// Removes an empty directory.
pub fn remove_directory(path: &CStr) -> Result<(), Errno> {
    // SAFETY: `path` is a valid C string for the whole call.
    unsafe { syscall(libc::SYS_rmdir, [path.as_ptr() as usize, 0, 0, 0, 0, 0]) }.map(drop)
}

/// Gives what the path names just these rights.
pub fn set_mode(path: &CStr, mode: u32) -> Result<(), Errno> {
    // SAFETY: `path` is a valid C string for the whole call.
    unsafe { syscall(libc::SYS_chmod, [path.as_ptr() as usize, mode as usize, 0, 0, 0, 0]) }.map(drop)
}

/// Gives a file its final name, which must not be taken (`EEXIST`).
pub fn rename_new(from: &CStr, to: &CStr) -> Result<(), Errno> {
    const NOREPLACE: usize = 1;
    let here = libc::AT_FDCWD as usize;
    let args = [here, from.as_ptr() as usize, here, to.as_ptr() as usize, NOREPLACE, 0];
    // SAFETY: both paths are valid C strings for the whole call.
    match unsafe { syscall(libc::SYS_renameat2, args) } {
        // A file system that can't.
        Err(Errno(libc::EINVAL | libc::ENOSYS)) => {}
        other => return other.map(drop),
    }
    // SAFETY: as above.
    unsafe { syscall(libc::SYS_link, [from.as_ptr() as usize, to.as_ptr() as usize, 0, 0, 0, 0]) }?;
    remove(from)
}

/// Removes a file.
pub fn remove(path: &CStr) -> Result<(), Errno> {
    // SAFETY: `path` is a valid C string for the whole call.
    unsafe { syscall(libc::SYS_unlink, [path.as_ptr() as usize, 0, 0, 0, 0, 0]) }.map(drop)
}

/// Reads a symbolic link's target.
pub fn read_link(path: &CStr, into: &mut [u8]) -> Result<usize, Errno> {
    let args = [path.as_ptr() as usize, into.as_mut_ptr() as usize, into.len(), 0, 0, 0];
    // SAFETY: `path` is a valid C string and `into` writable for its length.
    unsafe { syscall(libc::SYS_readlink, args) }
}

/// The working directory with its final NUL counted.
pub fn working_directory(into: &mut [u8]) -> Result<usize, Errno> {
    // SAFETY: `into` is writable for its length.
    unsafe { syscall(libc::SYS_getcwd, [into.as_mut_ptr() as usize, into.len(), 0, 0, 0, 0]) }
}

/// True where the file exists and may be used as `mode` says.
#[must_use]
pub fn accessible(path: &CStr, mode: i32) -> bool {
    let args = [libc::AT_FDCWD as usize, path.as_ptr() as usize, mode as usize, 0, 0, 0];
    // SAFETY: `path` is a valid C string for the whole call.
    unsafe { syscall(libc::SYS_faccessat, args) }.is_ok()
}

/// Writes to standard error, if it takes something right now: nobody waits for a full pipe because of us, and where nobody
/// reads any more there is nothing to say. Our own thread, whose descriptors are not the program's, borrows the program's for this moment.
pub fn complain(bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    let elsewhere = seal::is_our_thread() && OWN_TABLE.load(Ordering::Relaxed);
    let borrowed = if elsewhere { borrow(2).ok() } else { None };
    if elsewhere && borrowed.is_none() {
        return;
    }
    let fd = borrowed.as_ref().map_or(2, File::fd);
    if !takes_more(fd) {
        return;
    }
    let args = [fd as usize, bytes.as_ptr() as usize, bytes.len(), 0, 0, 0];
    // SAFETY: `bytes` is readable for its length.
    let _ = without_signals(|| unsafe { syscall(libc::SYS_write, args) }.map(drop));
}

/// True where a write would neither wait nor fail.
fn takes_more(fd: i32) -> bool {
    let mut asked = libc::pollfd { fd, events: libc::POLLOUT, revents: 0 };
    // SAFETY: one descriptor is asked for, and it is writable for the answer.
    let answer = unsafe { syscall(libc::SYS_poll, [&raw mut asked as usize, 1, 0, 0, 0, 0]) };
    answer == Ok(1) && asked.revents == libc::POLLOUT
}

/// A copy of a descriptor of the program's main thread.
fn borrow(fd: i32) -> Result<File, Errno> {
    let pid = super::process::pid() as usize;
    // SAFETY: no memory is involved.
    let process = File(unsafe { syscall(libc::SYS_pidfd_open, [pid, 0, 0, 0, 0, 0]) }? as i32);
    // SAFETY: as above.
    unsafe { syscall(libc::SYS_pidfd_getfd, [process.0 as usize, fd as usize, 0, 0, 0, 0]) }
        .map(|fd| File(fd as i32))
}

/// Gives the calling thread a table of descriptors of its own, that holds nothing but `kept`; false where this kernel
/// can't (5.9 can).
#[must_use]
pub fn own_table(kept: Option<i32>) -> bool {
    const UNSHARE: usize = 2;
    let close = |from: i64, to: i64, flags: usize| {
        // SAFETY: what is closed is the new table's copy; the program's own table stays as it is.
        from > to
            || unsafe { syscall(libc::SYS_close_range, [from as usize, to as usize, flags, 0, 0, 0]) }.is_ok()
    };
    let kept = kept.map_or(-1, i64::from);
    let own = close(kept + 1, i64::from(u32::MAX), UNSHARE) && close(0, kept - 1, 0);
    OWN_TABLE.store(own, Ordering::Relaxed);
    own
}
