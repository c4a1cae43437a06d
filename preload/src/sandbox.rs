//! Hooks of `prctl` and `syscall`, to see a program restrict its own system calls before it does.
//!
//! Both are called for many other things, `syscall` even for some that return twice; so the exported symbols look
//! at one argument and, unless it is a seccomp filter's, jump to the real function with nothing changed. A filter
//! that is installed by an instruction of the program's own goes unseen.

use core::arch::naked_asm;
use core::sync::atomic::{AtomicUsize, Ordering};
use memscope_recorder::start::sandbox::{self, Filter};
use memscope_recorder::symbols;

type Prctl = unsafe extern "C" fn(usize, usize, usize, usize, usize) -> i32;
type Syscall = unsafe extern "C" fn(usize, usize, usize, usize, usize, usize, usize) -> isize;

static PRCTL: AtomicUsize = AtomicUsize::new(0);
static SYSCALL: AtomicUsize = AtomicUsize::new(0);

const SET_SECCOMP: usize = libc::PR_SET_SECCOMP as usize;
const SECCOMP: usize = libc::SYS_seccomp as usize;
const STRICT: usize = libc::SECCOMP_MODE_STRICT as usize;
const FILTER: usize = libc::SECCOMP_MODE_FILTER as usize;
const SET_MODE_STRICT: usize = libc::SECCOMP_SET_MODE_STRICT as usize;
const SET_MODE_FILTER: usize = libc::SECCOMP_SET_MODE_FILTER as usize;
const ALL_THREADS: usize = libc::SECCOMP_FILTER_FLAG_TSYNC as usize;

/// Looks the real functions up.
pub fn resolve() {
    for (name, slot) in [(c"prctl", &PRCTL), (c"syscall", &SYSCALL)] {
        if let Some((address, _)) = symbols::next(name) {
            slot.store(address, Ordering::Release);
        }
    }
}

/// As `resolve`, for a call before the constructor.
extern "C" fn resolve_late() {
    resolve();
}

/// The hook proper of `prctl(PR_SET_SECCOMP, ...)`.
unsafe extern "C" fn prctl_seccomp(option: usize, mode: usize, c: usize, d: usize, e: usize) -> i32 {
    let filter = match mode {
        STRICT => Some(Filter::Strict),
        // Without a filter it only asks whether the kernel has them.
        FILTER if c != 0 => Some(Filter::CallingThread),
        _ => None,
    };
    // SAFETY: the stub has looked the function up; the arguments are the program's.
    let real = unsafe { core::mem::transmute::<usize, Prctl>(PRCTL.load(Ordering::Acquire)) };
    filter.into_iter().for_each(sandbox::before);
    // SAFETY: as above.
    let result = unsafe { real(option, mode, c, d, e) };
    if filter.is_some() && result != 0 {
        sandbox::refused();
    }
    result
}

/// The hook proper of `syscall(SYS_seccomp, ...)`.
unsafe extern "C" fn syscall_seccomp(
    number: usize,
    operation: usize,
    flags: usize,
    program: usize,
    d: usize,
    e: usize,
    f: usize,
) -> isize {
    let filter = match operation {
        SET_MODE_STRICT => Some(Filter::Strict),
        SET_MODE_FILTER if program == 0 => None,
        SET_MODE_FILTER if flags & ALL_THREADS != 0 => Some(Filter::AllThreads),
        SET_MODE_FILTER => Some(Filter::CallingThread),
        _ => None,
    };
    // SAFETY: the stub has looked the function up; the arguments are the program's.
    let real = unsafe { core::mem::transmute::<usize, Syscall>(SYSCALL.load(Ordering::Acquire)) };
    filter.into_iter().for_each(sandbox::before);
    // SAFETY: as above.
    let result = unsafe { real(number, operation, flags, program, d, e, f) };
    // A filter for all threads that could not be given to one of them: the thread's number. With a listener: a
    // descriptor, and the filter is there.
    let refused = result < 0 || result > 0 && filter == Some(Filter::AllThreads);
    if filter.is_some() && refused {
        sandbox::refused();
    }
    result
}

/// The body of a stub: `asks` compares the argument, `hook` takes over where it is equal, else the real function does.
macro_rules! stub {
    ($name:literal, $id:ident, $asks:literal, $value:ident, $hook:path, $real:ident) => {
        #[unsafe(naked)]
        #[unsafe(export_name = $name)]
        unsafe extern "C" fn $id() {
            naked_asm!(
                ".cfi_startproc",
                "endbr64",
                "mov r11, qword ptr [rip + {real}]",
                "test r11, r11",
                "jz 3f",
                "2:",
                $asks,
                "je {hook}",
                "jmp r11",
                "3:",
                // Seven pushes: with the return address the stack is aligned again.
                "push rdi",
                ".cfi_adjust_cfa_offset 8",
                "push rsi",
                ".cfi_adjust_cfa_offset 8",
                "push rdx",
                ".cfi_adjust_cfa_offset 8",
                "push rcx",
                ".cfi_adjust_cfa_offset 8",
                "push r8",
                ".cfi_adjust_cfa_offset 8",
                "push r9",
                ".cfi_adjust_cfa_offset 8",
                "push rax",
                ".cfi_adjust_cfa_offset 8",
                "call {late}",
                "pop rax",
                ".cfi_adjust_cfa_offset -8",
                "pop r9",
                ".cfi_adjust_cfa_offset -8",
                "pop r8",
                ".cfi_adjust_cfa_offset -8",
                "pop rcx",
                ".cfi_adjust_cfa_offset -8",
                "pop rdx",
                ".cfi_adjust_cfa_offset -8",
                "pop rsi",
                ".cfi_adjust_cfa_offset -8",
                "pop rdi",
                ".cfi_adjust_cfa_offset -8",
                "mov r11, qword ptr [rip + {real}]",
                "jmp 2b",
                ".cfi_endproc",
                real = sym $real,
                hook = sym $hook,
                late = sym resolve_late,
                value = const $value,
            )
        }
    };
}

stub!("prctl", prctl_stub, "cmp edi, {value}", SET_SECCOMP, prctl_seccomp, PRCTL);
stub!("syscall", syscall_stub, "cmp rdi, {value}", SECCOMP, syscall_seccomp, SYSCALL);

/// AddressSanitizer asks its program for options. Not being first among the libraries is no reason to give up: where it is
/// found, nothing is recorded (see the recorder's `start::sanitizer`).
#[unsafe(no_mangle)]
pub extern "C" fn __asan_default_options() -> *const core::ffi::c_char {
    c"verify_asan_link_order=0".as_ptr()
}
