//! Memory from the kernel.

use super::{Errno, syscall};

/// Size of a page.
pub const PAGE: usize = 4096;

/// Maps `len` bytes of private zeroed memory. Nothing is populated.
pub fn map_private(len: usize) -> Result<*mut u8, Errno> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    let args = [0, len, (libc::PROT_READ | libc::PROT_WRITE) as usize, flags as usize, usize::MAX, 0];
    // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
    let mapped = unsafe { syscall(libc::SYS_mmap, args) }.map(|address| address as *mut u8);
    #[cfg(loom)]
    let mapped = mapped.inspect(|address| crate::sync::model::mapped(*address, len));
    mapped
}

/// Maps `len` bytes of private zeroed memory whose start is a multiple of `align` (a power of two of at
/// least [`PAGE`]).
pub fn map_private_aligned(len: usize, align: usize) -> Result<*mut u8, Errno> {
    let whole = len + align;
    let base = map_private(whole)? as usize;
    let start = (base + align - 1) & !(align - 1);
    // SAFETY: both ranges are parts of the mapping that was just made and that nobody else knows.
    unsafe {
        if start > base {
            let _ = unmap(base as *mut u8, start - base);
        }
        if base + whole > start + len {
            let _ = unmap((start + len) as *mut u8, base + whole - start - len);
        }
    }
    Ok(start as *mut u8)
}

/// Maps `len` bytes of a file, shared, from `offset` on.
pub fn map_shared(fd: i32, offset: usize, len: usize) -> Result<*mut u8, Errno> {
    let protection = (libc::PROT_READ | libc::PROT_WRITE) as usize;
    let args = [0, len, protection, libc::MAP_SHARED as usize, fd as usize, offset];
    // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
    unsafe { syscall(libc::SYS_mmap, args) }.map(|address| address as *mut u8)
}

/// Puts private zeroed memory in the place of what is mapped there.
///
/// # Safety
/// The range must be one that this crate mapped, and nobody may count on its contents.
pub unsafe fn replace(address: *mut u8, len: usize) -> Result<(), Errno> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED;
    let protection = (libc::PROT_READ | libc::PROT_WRITE) as usize;
    let args = [address as usize, len, protection, flags as usize, usize::MAX, 0];
    // SAFETY: as promised by the caller.
    unsafe { syscall(libc::SYS_mmap, args) }.map(drop)
}

/// Unmaps memory.
///
/// # Safety
/// The range must be one that this crate mapped, and nobody may use it any more.
pub unsafe fn unmap(address: *mut u8, len: usize) -> Result<(), Errno> {
    #[cfg(loom)]
    crate::sync::model::unmapped(address);
    // SAFETY: as promised by the caller.
    unsafe { syscall(libc::SYS_munmap, [address as usize, len, 0, 0, 0, 0]) }.map(drop)
}

/// Takes all access away: who touches it, faults.
///
/// # Safety
/// The range must be one that this crate mapped, and nobody may use it.
pub unsafe fn forbid(address: *mut u8, len: usize) -> Result<(), Errno> {
    let args = [address as usize, len, libc::PROT_NONE as usize, 0, 0, 0];
    // SAFETY: as promised by the caller.
    unsafe { syscall(libc::SYS_mprotect, args) }.map(drop)
}

/// Gives advice about a mapping of ours.
///
/// # Safety
/// The range must be one that this crate mapped; advice that discards contents must not hit memory in use.
pub unsafe fn advise(address: *mut u8, len: usize, advice: i32) -> Result<(), Errno> {
    // SAFETY: as promised by the caller.
    unsafe { syscall(libc::SYS_madvise, [address as usize, len, advice as usize, 0, 0, 0]) }.map(drop)
}

/// Copies what stands at `address` as far as there is memory; the number of bytes. The kernel reads, so nothing is asked of the
/// address.
#[must_use]
pub fn copy(address: usize, into: &mut [u8]) -> usize {
    let mut done = 0;
    while done < into.len() {
        let Some(from) = address.checked_add(done) else { break };
        // Page by page: of a part that begins in memory and ends outside, nothing may be read.
        let part = (into.len() - done).min(PAGE - from % PAGE);
        let local = libc::iovec { iov_base: into[done..].as_mut_ptr().cast(), iov_len: part };
        let remote = libc::iovec { iov_base: from as *mut libc::c_void, iov_len: part };
        let args =
            [super::process::pid() as usize, &raw const local as usize, 1, &raw const remote as usize, 1, 0];
        // SAFETY: `into` is writable for the part; the kernel checks the other address itself.
        match unsafe { syscall(libc::SYS_process_vm_readv, args) } {
            Ok(n) if n == part => done += n,
            _ => break,
        }
    }
    done
}

/// True where the 8 bytes at `address` can be read, asked of the kernel: a change of the signal mask with a
/// nonsensical `how` first reads the mask (EFAULT where it can't) and then refuses (EINVAL), changing nothing.
#[must_use]
pub fn is_readable(address: usize) -> bool {
    let args = [usize::MAX, address, 0, 8, 0, 0];
    // SAFETY: the kernel only reads, and checks the address itself.
    let asked = unsafe { syscall(libc::SYS_rt_sigprocmask, args) };
    asked == Err(Errno(libc::EINVAL))
}
