//! Every system call of the recorder, raw.
//!
//! The recorder runs inside other people's programs, in their `malloc`. So it calls the kernel
//! directly: no `errno` is touched, no thread-local storage, no cancellation point, and nothing that
//! another library could have interposed. All functions return `Result<_, Errno>` and are
//! async-signal-safe.

pub mod descriptors;
pub mod file;
pub mod futex;
pub mod limits;
pub mod memory;
pub mod own_stack;
pub mod process;
pub mod seal;
pub mod signal;
pub mod time;

use core::arch::asm;

/// An error number of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub i32);

impl Errno {
    /// Interrupted by a signal.
    pub const EINTR: Self = Self(libc::EINTR);
    /// Not there.
    pub const ENOENT: Self = Self(libc::ENOENT);
    /// A path means nothing, or something else, by now.
    pub const ESTALE: Self = Self(libc::ESTALE);
    /// There already.
    pub const EEXIST: Self = Self(libc::EEXIST);
    /// No space.
    pub const ENOSPC: Self = Self(libc::ENOSPC);
    /// Not of the kernel: the directory holds a recording.
    pub const HOLDS_RECORDING: Self = Self(-1);
    /// Not permitted.
    pub const EPERM: Self = Self(libc::EPERM);
    /// Not of the kernel: the directory belongs to somebody else.
    pub const FOREIGN: Self = Self(-2);
    /// No such process or thread.
    pub const ESRCH: Self = Self(libc::ESRCH);

    /// What the error means, in a few words.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self.0 {
            -1 => "it already holds a recording",
            -2 => "it belongs to somebody else, or is a symbolic link",
            libc::EPERM => "not permitted",
            libc::ENOENT => "no such file or directory",
            libc::ESTALE => "its path leads nowhere, or elsewhere",
            libc::EACCES => "permission denied",
            libc::EEXIST => "exists already",
            libc::ENOTDIR => "not a directory",
            libc::EMFILE | libc::ENFILE => "too many open files",
            libc::EFBIG => "file size limit reached",
            libc::ENOSPC => "no space left",
            libc::EROFS => "read-only file system",
            libc::EDQUOT => "quota exceeded",
            libc::ENOMEM => "out of memory",
            libc::EIO => "input/output error",
            libc::ELOOP => "a symbolic link where none is allowed",
            libc::ENAMETOOLONG => "name too long",
            libc::ENOSYS => "not supported by this kernel",
            _ => "system error",
        }
    }
}

/// Makes a system call, unless the thread is sealed off ([`seal`]): then it fails with EPERM.
///
/// # Safety
/// As the system call itself: pointers must be valid for what the kernel reads and writes, and the call must not
/// break an invariant of this process (such as unmapping memory in use).
#[inline(always)]
pub unsafe fn syscall(number: libc::c_long, args: [usize; 6]) -> Result<usize, Errno> {
    if seal::forbids() {
        return Err(Errno::EPERM);
    }
    // SAFETY: as promised by the caller.
    unsafe { syscall_past_seal(number, args) }
}

/// Makes a system call that takes back what an earlier one did, though the thread may have been sealed off between the two.
///
/// # Safety
/// As for [`syscall`].
#[inline(always)]
pub unsafe fn syscall_past_seal(number: libc::c_long, args: [usize; 6]) -> Result<usize, Errno> {
    let result: isize;
    // SAFETY: the kernel's calling convention on x86-64: rcx and r11 are clobbered, everything else but
    // rax is kept. What the call itself does is the caller's promise.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") args[0],
            in("rsi") args[1],
            in("rdx") args[2],
            in("r10") args[3],
            in("r8") args[4],
            in("r9") args[5],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    if (-4095..0).contains(&result) { Err(Errno(-result as i32)) } else { Ok(result as usize) }
}
