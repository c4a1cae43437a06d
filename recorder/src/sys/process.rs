//! Processes and threads.

use super::file::File;
use super::{Errno, file, syscall};
use core::arch::asm;
use core::ffi::CStr;
use memscope_shared::stat;

/// This process's id.
#[must_use]
pub fn pid() -> u32 {
    // SAFETY: takes no arguments and cannot fail.
    unsafe { syscall(libc::SYS_getpid, [0; 6]) }.unwrap_or(0) as u32
}

/// The parent's id.
#[must_use]
pub fn parent_pid() -> u32 {
    // SAFETY: takes no arguments and cannot fail.
    unsafe { syscall(libc::SYS_getppid, [0; 6]) }.unwrap_or(0) as u32
}

/// The user that this process belongs to: (real, effective).
#[must_use]
pub fn users() -> (u32, u32) {
    // SAFETY: take no arguments and cannot fail.
    let user = |number| unsafe { syscall(number, [0; 6]) }.unwrap_or(0) as u32;
    (user(libc::SYS_getuid), user(libc::SYS_geteuid))
}

/// The capability to open what others have made private.
pub const DAC_OVERRIDE: usize = 1;

/// Whether the calling thread has this capability beyond the next `exec`, though its user is not root.
#[must_use]
pub fn keeps_capability(capability: usize) -> bool {
    let args = [libc::PR_CAP_AMBIENT as usize, libc::PR_CAP_AMBIENT_IS_SET as usize, capability, 0, 0, 0];
    // SAFETY: only asks.
    let kept = unsafe { syscall(libc::SYS_prctl, args) };
    kept == Ok(1)
}

/// The group that this process belongs to.
#[must_use]
pub fn group() -> u32 {
    // SAFETY: takes no arguments and cannot fail.
    unsafe { syscall(libc::SYS_getgid, [0; 6]) }.unwrap_or(0) as u32
}

/// True where nothing that this process runs can gain rights.
#[must_use]
pub fn gains_no_rights() -> bool {
    // SAFETY: asks for a flag; no memory is involved.
    let asked = unsafe { syscall(libc::SYS_prctl, [libc::PR_GET_NO_NEW_PRIVS as usize, 0, 0, 0, 0, 0]) };
    asked == Ok(1)
}

/// The namespace that this process's id is a number of; 0 where it can't be told.
#[must_use]
pub fn namespace() -> u64 {
    file::inode_of(c"/proc/self/ns/pid").unwrap_or(0)
}

/// A descriptor that stands for a process, closed on exec.
pub fn descriptor(pid: u32) -> Result<i32, Errno> {
    // SAFETY: no memory is involved.
    unsafe { syscall(libc::SYS_pidfd_open, [pid as usize, 0, 0, 0, 0, 0]) }.map(|fd| fd as i32)
}

/// The process that a descriptor stands for.
#[must_use]
pub fn of_descriptor(fd: i32) -> Option<u32> {
    let (mut name, mut text) = ([0; 40], [0; 1024]);
    file::numbered(b"/proc/self/fdinfo/", fd.unsigned_abs(), &mut name);
    let n = read_file(CStr::from_bytes_until_nul(&name).ok()?, &mut text).ok()?;
    let line = text[..n].split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(b"Pid:"))?;
    core::str::from_utf8(line.trim_ascii()).ok()?.parse().ok()
}

/// This thread's id.
#[must_use]
pub fn tid() -> u32 {
    #[cfg(loom)]
    if crate::sync::model::running() {
        return crate::sync::model::tid();
    }
    // SAFETY: takes no arguments and cannot fail.
    unsafe { syscall(libc::SYS_gettid, [0; 6]) }.unwrap_or(0) as u32
}

/// Whether the calling thread is the one that the process began with.
#[must_use]
pub fn is_first_thread() -> bool {
    tid() == pid()
}

/// An address at the upper end of the calling thread's own stack: all of the stack's frames lie below it, and everything
/// between is the stack's. Threads have their control block there. What the kernel gives the first thread lies above its
/// frames. (A thread that has forked is its child's first one: that is told an address that its stack doesn't lead to.)
#[must_use]
pub fn stack_top() -> usize {
    if is_first_thread() {
        // SAFETY: takes a number; that there is such an entry every Linux sees to.
        return unsafe { libc::getauxval(libc::AT_RANDOM) } as usize & !7;
    }
    let block: usize;
    // SAFETY: the first word of every thread's control block is its own address.
    unsafe {
        asm!("mov {}, qword ptr fs:[0]", out(reg) block, options(nostack, preserves_flags, readonly));
    }
    block
}

/// True where a thread of this process has that id.
#[must_use]
pub fn thread_exists(pid: u32, tid: u32) -> bool {
    #[cfg(loom)]
    if crate::sync::model::running() {
        return crate::sync::model::thread_exists(tid);
    }
    // SAFETY: signal 0 is never delivered, it only asks.
    let asked = unsafe { syscall(libc::SYS_tgkill, [pid as usize, tid as usize, 0, 0, 0, 0]) };
    asked != Err(Errno::ESRCH)
}

/// Name of the calling thread, zero-padded.
#[must_use]
pub fn thread_name() -> [u8; 16] {
    let mut name = [0_u8; 16];
    let args = [libc::PR_GET_NAME as usize, name.as_mut_ptr() as usize, 0, 0, 0, 0];
    // SAFETY: the kernel writes at most 16 bytes, with a final NUL.
    let _ = unsafe { syscall(libc::SYS_prctl, args) };
    name
}

/// Gives the processor to another thread.
pub fn yield_now() {
    #[cfg(loom)]
    if crate::sync::model::running() {
        return loom::thread::yield_now();
    }
    // SAFETY: takes no arguments.
    let _ = unsafe { syscall(libc::SYS_sched_yield, [0; 6]) };
}

/// Sleeps for at most a second; less where a signal handler runs.
fn nap(ns: u64) {
    let time = [0, ns.min(999_999_999)];
    // SAFETY: the kernel reads the two words, and writes nothing.
    let _ = unsafe { syscall(libc::SYS_nanosleep, [time.as_ptr() as usize, 0, 0, 0, 0, 0]) };
}

/// Turns of a wait for another thread, which may have ended or been stopped in the middle of what is waited for: so the wait ends.
#[derive(Debug, Default)]
pub struct Turns {
    taken: u32,
    last_ns: u64,
    waited_ns: u64,
}

impl Turns {
    /// What is waited for takes microseconds.
    const PATIENCE_NS: u64 = 5_000_000_000;
    /// Between two turns: a process that was stopped meanwhile has not waited all that time.
    const MOST_NS: u64 = 200_000_000;
    /// Where no clock can be asked (see [`super::seal`]).
    const MOST_TURNS: u32 = 1 << 28;
    /// Turns that only give way. Where many threads do that, who is waited for may not get the processor for seconds, so then they sleep.
    const WAKEFUL: u32 = 8;
    /// The first sleep, and the longest.
    const NAP_NS: u64 = 20_000;
    const LONGEST_NAP_NS: u64 = 1_000_000;

    /// Gives the processor to another thread; false where that has lasted too long.
    #[must_use]
    pub fn pass(&mut self) -> bool {
        if cfg!(loom) || self.taken < Self::WAKEFUL {
            yield_now();
        } else {
            let doublings = ((self.taken - Self::WAKEFUL) / 4).min(16);
            nap((Self::NAP_NS << doublings).min(Self::LONGEST_NAP_NS));
        }
        if cfg!(loom) {
            return true;
        }
        self.taken = self.taken.saturating_add(1);
        let now = super::time::monotonic_ns();
        if self.last_ns != 0 {
            self.waited_ns += now.saturating_sub(self.last_ns).min(Self::MOST_NS);
        }
        self.last_ns = now;
        self.waited_ns < Self::PATIENCE_NS && self.taken < Self::MOST_TURNS
    }
}

/// Start of this process in clock ticks since boot: field 22 of `/proc/self/stat`. 0 where that can't
/// be read.
#[must_use]
pub fn start_ticks() -> u64 {
    let mut text = [0_u8; 1024];
    let Ok(n) = File::read_only(c"/proc/self/stat").and_then(|file| file.read_full(&mut text)) else {
        return 0;
    };
    stat::start_ticks(&text[..n]).unwrap_or(0)
}

/// Where the calling thread is the only one left of the process, whose main thread has ended: the main thread's exit
/// status. (Recent kernels take the process's from the thread that ends last.)
#[must_use]
pub fn left_alone() -> Option<u32> {
    let mut text = [0_u8; 1024];
    let n = read_file(c"/proc/self/stat", &mut text).ok()?;
    let text = &text[..n];
    if stat::field(text, 3) != Some(b"Z") || stat::number(text, 20) != Some(2) {
        return None;
    }
    stat::number(text, 52).map(|code| code as u32 >> 8 & 0xff)
}

/// Memory of this process in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Its address space.
    pub space: u64,
    /// What of that is resident.
    pub resident: u64,
    /// What of that counts as data.
    pub data: u64,
}

/// Memory of this process, as the kernel counts it.
#[must_use]
pub fn memory() -> Option<Memory> {
    let mut text = [0_u8; 128];
    let n = read_file(c"/proc/self/statm", &mut text).ok()?;
    let bytes = |field: usize| {
        let field = text[..n].split(|&byte| byte == b' ').nth(field)?;
        core::str::from_utf8(field).ok()?.parse::<u64>().ok().map(|pages| pages * super::memory::PAGE as u64)
    };
    Some(Memory { space: bytes(0)?, resident: bytes(1)?, data: bytes(5)? })
}

/// Reads a small file of `/proc` whole into `into`; the number of bytes read.
pub fn read_file(path: &CStr, into: &mut [u8]) -> Result<usize, Errno> {
    File::read_only(path)?.read_full(into)
}

/// Reads a file of words, each with a NUL behind it, as those below `/proc` are; none where it cannot be read.
#[must_use]
pub fn read_words(path: &CStr) -> Vec<Vec<u8>> {
    let mut few = [0; 4096];
    let mut many = Vec::new();
    let mut n = read_file(path, &mut few).unwrap_or(0);
    let mut text = &few[..n];
    if n == few.len() {
        many.resize(256 << 10, 0);
        n = read_file(path, &mut many).unwrap_or(0);
        text = &many[..n];
    }
    text.strip_suffix(b"\0").unwrap_or(text).split(|&byte| byte == 0).map(<[u8]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_not_alone_and_has_started() {
        assert_eq!(left_alone(), None);
        assert!(start_ticks() > 0);
    }

    #[test]
    fn threads_are_told_from_nobody() {
        assert!(thread_exists(pid(), tid()));
        assert!(!thread_exists(pid(), 0x3fff_ffff));
        assert!(memory().is_some_and(|memory| memory.resident > 100_000 && memory.space > memory.data));
    }
}
