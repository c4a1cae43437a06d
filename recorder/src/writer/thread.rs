//! Our thread: made by a raw `clone`, with a stack and a thread block of its own.
//!
//! `pthread_create` would allocate from the program's heap (the thread's TLS block comes from `calloc`), take libc's
//! locks inside of the program's `malloc`, and end libc's single-threaded shortcuts for a program
//! that has no other thread. The price: this thread must never call into libc proper, and it doesn't
//! (see [`crate::sys`]); memory functions like `memcpy` are all that it shares.
//!
//! The thread block is zero but for the words that compiled code may read: the self pointers, the stack
//! protector's canary and our own TLS word.

use super::drain;
use crate::process::Process;
use crate::program::tls;
use crate::sys::{memory, seal, syscall};
use core::arch::asm;

const STACK: usize = 512 << 10;
const THREAD_BLOCK: usize = 64 << 10;
/// Room above the thread pointer for what compiled code may expect in the thread control block.
const CONTROL_BLOCK: usize = 8 << 10;

/// Without `CLONE_FS`: a process that shares its root and directory may not enter a mount namespace. Ours stay what they are
/// now, and all our paths are absolute.
const FLAGS: i32 = libc::CLONE_VM
    | libc::CLONE_FILES
    | libc::CLONE_SIGHAND
    | libc::CLONE_THREAD
    | libc::CLONE_SYSVSEM
    | libc::CLONE_SETTLS
    | libc::CLONE_PARENT_SETTID
    | libc::CLONE_CHILD_CLEARTID;

/// Starts the thread; false where the system refuses.
pub fn spawn(process: &'static Process) -> bool {
    if cfg!(loom) {
        // In a model one of its own threads is the writer.
        return true;
    }
    let Some(thread_pointer) = thread_block() else { return false };
    let Ok(stack) = memory::map_private(STACK) else { return false };
    let top = (stack as usize + STACK - 64) & !15;
    // The new thread must not run a handler of the program's before it has blocked all signals.
    let mask = u64::MAX;
    let mut before = 0_u64;
    // SAFETY: both masks are valid; the program's mask is put back below.
    unsafe {
        let set = [libc::SIG_SETMASK as usize, &raw const mask as usize, &raw mut before as usize, 8, 0, 0];
        let _ = syscall(libc::SYS_rt_sigprocmask, set);
        let made = clone(top, thread_pointer, process);
        let restore = [libc::SIG_SETMASK as usize, &raw const before as usize, 0, 8, 0, 0];
        let _ = syscall(libc::SYS_rt_sigprocmask, restore);
        made
    }
}

/// A block like the one that the thread pointer of every thread points into.
fn thread_block() -> Option<usize> {
    let block = memory::map_private(THREAD_BLOCK).ok()? as usize;
    let pointer = block + THREAD_BLOCK - CONTROL_BLOCK;
    let word = pointer.checked_add_signed(tls::offset())?;
    if word < block || word >= pointer {
        return None;
    }
    let canary: usize;
    // SAFETY: every x86-64 thread of glibc has the canary at fs:0x28; the block is ours and writable.
    unsafe {
        asm!("mov {}, qword ptr fs:[0x28]", out(reg) canary, options(nostack, preserves_flags, readonly));
        (pointer as *mut usize).write(pointer);
        ((pointer + 0x10) as *mut usize).write(pointer);
        ((pointer + 0x28) as *mut usize).write(canary);
        (word as *mut usize).write(tls::OURS);
    }
    seal::is_ours(pointer);
    Some(pointer)
}

/// The system call, and in the new thread the jump to [`run`]. True in the caller where it worked.
///
/// # Safety
/// `top` ends a free stack; `thread_pointer` is a block that compiled code can run with.
unsafe fn clone(top: usize, thread_pointer: usize, process: &'static Process) -> bool {
    let result: isize;
    // SAFETY: the child shares no stack frame with us: it calls `run`, which never returns. In the parent
    // the call behaves like any system call.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r12",
            "call r13",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone as isize => result,
            in("rdi") FLAGS as usize,
            in("rsi") top,
            in("rdx") process.writer.tid.as_ptr(),
            in("r10") process.writer.tid.as_ptr(),
            in("r8") thread_pointer,
            in("r12") core::ptr::from_ref(process),
            in("r13") run as extern "C" fn(&'static Process) -> !,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result > 0
}

extern "C" fn run(process: &'static Process) -> ! {
    let name = b"memscope\0";
    // SAFETY: a C string of under 16 bytes.
    let _ =
        unsafe { syscall(libc::SYS_prctl, [libc::PR_SET_NAME as usize, name.as_ptr() as usize, 0, 0, 0, 0]) };
    let status = drain::serve(process, &process.writer) as usize;
    loop {
        // SAFETY: ends this thread only; its stack and block stay mapped.
        let _ = unsafe { syscall(libc::SYS_exit, [status, 0, 0, 0, 0, 0]) };
    }
}
