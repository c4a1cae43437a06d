//! Hooks of `prctl` and `syscall`, to see a program restrict its own system calls before it does, and to see it fork or start
//! another program by number.
//!
//! Both are called for many other things, `syscall` even for some that return twice; so the exported symbols look
//! at one argument and, unless it is one of a few numbers, jump to the real function with nothing changed. A filter
//! that is installed by an instruction of the program's own goes unseen.

use crate::leaving;
use crate::programs::text;
use core::arch::naked_asm;
use core::ffi::{c_char, c_int, c_long};
use core::sync::atomic::{AtomicUsize, Ordering};
use memscope_recorder::children::{self, Program, Strings};
use memscope_recorder::program::fork;
use memscope_recorder::start::sandbox::{self, Filter};
use memscope_recorder::symbols;
use memscope_recorder::sys::memory;

type Prctl = unsafe extern "C" fn(usize, usize, usize, usize, usize) -> i32;
type Syscall = unsafe extern "C" fn(usize, usize, usize, usize, usize, usize, usize) -> isize;

static PRCTL: AtomicUsize = AtomicUsize::new(0);
static SYSCALL: AtomicUsize = AtomicUsize::new(0);

const SET_SECCOMP: usize = libc::PR_SET_SECCOMP as usize;
const SECCOMP: usize = libc::SYS_seccomp as usize;
const BY_NUMBER: usize = libc::SYS_prctl as usize;
const STRICT: usize = libc::SECCOMP_MODE_STRICT as usize;
const FILTER: usize = libc::SECCOMP_MODE_FILTER as usize;
const SET_MODE_STRICT: u32 = libc::SECCOMP_SET_MODE_STRICT;
const SET_MODE_FILTER: u32 = libc::SECCOMP_SET_MODE_FILTER;
const ALL_THREADS: u32 = libc::SECCOMP_FILTER_FLAG_TSYNC as u32;
const LISTENER: u32 = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER as u32;

/// Looks the real functions up.
pub fn resolve() {
    for (name, slot) in [(c"prctl", &PRCTL), (c"syscall", &SYSCALL)] {
        if let Some((address, _)) = symbols::next(name) {
            slot.store(address, Ordering::Release);
        }
    }
}

/// Whether the hook takes this call of `prctl`. The first one may come before the constructor.
extern "C" fn takes_prctl(option: usize) -> bool {
    if PRCTL.load(Ordering::Acquire) == 0 {
        resolve();
    }
    has(&OPTIONS, option)
}

/// The same for `syscall`, with its first arguments.
extern "C" fn takes_syscall(number: usize, a: usize, b: usize) -> bool {
    if SYSCALL.load(Ordering::Acquire) == 0 {
        resolve();
    }
    has(&SYSCALLS, number)
        && match i64::from(number as u32) {
            libc::SYS_clone => forks(a as u64, b as u64),
            libc::SYS_clone3 => arguments(a, b).is_some_and(|[flags, stack]| forks(flags, stack)),
            _ => true,
        }
}

/// Whether `clone` with these flags makes a child that goes on where its parent does, on a copy of its memory.
const fn forks(flags: u64, stack: u64) -> bool {
    flags & (libc::CLONE_VM | libc::CLONE_SETTLS) as u64 == 0 && stack == 0
}

/// The least that the kernel takes for the arguments of `clone3`: `CLONE_ARGS_SIZE_VER0`.
const ARGUMENTS_SIZE: usize = 64;

/// Flags and stack in the arguments of `clone3`, which may be anywhere: programs find out by nonsense whether the kernel has it.
fn arguments(address: usize, size: usize) -> Option<[u64; 2]> {
    let mut words = [[0; 8]; 6];
    let whole = size >= ARGUMENTS_SIZE && memory::copy(address, words.as_flattened_mut()) == 48;
    whole.then(|| [u64::from_ne_bytes(words[0]), u64::from_ne_bytes(words[5])])
}

/// What `prctl(PR_SET_SECCOMP, mode, program)` asks for.
const fn asked_of_prctl(mode: usize, program: usize) -> Option<Filter> {
    match mode {
        STRICT => Some(Filter::Strict),
        // Without a filter it only asks whether the kernel has them.
        FILTER if program != 0 => Some(Filter::CallingThread),
        _ => None,
    }
}

/// The hook proper of `prctl(PR_SET_SECCOMP, ...)`.
unsafe extern "C" fn prctl_seccomp(option: usize, mode: usize, c: usize, d: usize, e: usize) -> i32 {
    let filter = asked_of_prctl(mode, c);
    // SAFETY: the stub has looked the function up; the arguments are the program's.
    let real = unsafe { core::mem::transmute::<usize, Prctl>(PRCTL.load(Ordering::Acquire)) };
    let undo = filter.and_then(sandbox::before);
    // SAFETY: as above.
    let result = unsafe { real(option, mode, c, d, e) };
    if let Some(undo) = undo.filter(|_| result != 0) {
        sandbox::refused(&undo);
    }
    result
}

/// What `seccomp(operation, flags, program)` asks for.
const fn asked_of_seccomp(operation: u32, flags: u32, program: usize) -> Option<Filter> {
    match operation {
        // With anything more it is refused: so libraries ask whether the kernel has the call.
        SET_MODE_STRICT if flags == 0 && program == 0 => Some(Filter::Strict),
        SET_MODE_FILTER if program == 0 => None,
        SET_MODE_FILTER if flags & ALL_THREADS != 0 => Some(Filter::AllThreads),
        SET_MODE_FILTER => Some(Filter::CallingThread),
        _ => None,
    }
}

/// The hook proper of `syscall(SYS_seccomp, ...)` and `syscall(SYS_prctl, ...)`.
unsafe extern "C" fn syscall_seccomp(
    number: usize,
    a: usize,
    b: usize,
    c: usize,
    d: usize,
    e: usize,
    f: usize,
) -> isize {
    // The kernel reads numbers of 32 bits.
    let filter = match number {
        SECCOMP => asked_of_seccomp(a as u32, b as u32, c),
        BY_NUMBER if a as u32 as usize == SET_SECCOMP => asked_of_prctl(b, c),
        _ => None,
    };
    // SAFETY: the stub has looked the function up; the arguments are the program's.
    let real = unsafe { core::mem::transmute::<usize, Syscall>(SYSCALL.load(Ordering::Acquire)) };
    let undo = filter.and_then(sandbox::before);
    // SAFETY: as above.
    let result = unsafe { real(number, a, b, c, d, e, f) };
    // A filter for all threads that could not be given to one of them: the thread's number. With a listener: a
    // descriptor, and the filter is there.
    let thread = filter == Some(Filter::AllThreads) && b as u32 & LISTENER == 0;
    if let Some(undo) = undo.filter(|_| result < 0 || result > 0 && thread) {
        sandbox::refused(&undo);
    }
    result
}

/// The hook proper of `syscall`, for the numbers of [`SYSCALLS`].
unsafe extern "C" fn syscall_hook(
    number: usize,
    a: usize,
    b: usize,
    c: usize,
    d: usize,
    e: usize,
    f: usize,
) -> isize {
    // SAFETY: the stub has looked the function up; the arguments are the program's.
    let real = unsafe { core::mem::transmute::<usize, Syscall>(SYSCALL.load(Ordering::Acquire)) };
    // SAFETY: as above; these calls take strings as the functions of their names do.
    unsafe {
        match i64::from(number as u32) {
            libc::SYS_execve => {
                let program = Program::Path(text(a as *const c_char));
                let call = |envp: Strings| real(number, a, b, envp as usize, d, e, f) as c_int;
                children::exec(program, b as Strings, c as Strings, call) as isize
            }
            libc::SYS_execveat => {
                let program = Program::At(a as c_int, text(b as *const c_char));
                let call = |envp: Strings| real(number, a, b, c, envp as usize, e, f) as c_int;
                children::exec(program, c as Strings, d as Strings, call) as isize
            }
            libc::SYS_fork | libc::SYS_clone | libc::SYS_clone3 => {
                fork::before();
                let child = real(number, a, b, c, d, e, f);
                if child == 0 {
                    fork::child()
                } else {
                    fork::after()
                }
                child
            }
            asked if leaving::NUMBERS.contains(&asked) => {
                leaving::before_call(asked, a, b, c);
                real(number, a, b, c, d, e, f)
            }
            _ => syscall_seccomp(number, a, b, c, d, e, f),
        }
    }
}

/// Numbers below 512, one bit each.
type Numbers = [u64; 8];

const fn numbers(list: &[c_long]) -> Numbers {
    let mut bits = [0; 8];
    let mut index = 0;
    while index < list.len() {
        let number = list[index] as usize;
        bits[number / 64] |= 1 << (number % 64);
        index += 1;
    }
    bits
}

const fn with(mut some: Numbers, others: Numbers) -> Numbers {
    let mut index = 0;
    while index < some.len() {
        some[index] |= others[index];
        index += 1;
    }
    some
}

/// System calls that are looked at.
static SYSCALLS: Numbers = with(
    numbers(&[libc::SYS_seccomp, libc::SYS_prctl, libc::SYS_execve, libc::SYS_execveat]),
    with(numbers(&[libc::SYS_fork, libc::SYS_clone, libc::SYS_clone3]), numbers(&leaving::NUMBERS)),
);
/// Options of `prctl` that are looked at.
static OPTIONS: Numbers = numbers(&[libc::PR_SET_SECCOMP as c_long]);

fn has(numbers: &Numbers, number: usize) -> bool {
    let number = number as u32 as usize;
    numbers.get(number / 64).is_some_and(|word| word >> (number % 64) & 1 != 0)
}

/// The body of a stub: where the first argument is one of the numbers, and `takes` says so, `hook` takes over, else the real
/// function does.
macro_rules! stub {
    ($name:literal, $id:ident, $numbers:ident, $takes:path, $hook:path, $real:ident) => {
        #[unsafe(naked)]
        #[unsafe(export_name = $name)]
        unsafe extern "C" fn $id() {
            naked_asm!(
                ".cfi_startproc",
                "endbr64",
                "mov r11, qword ptr [rip + {real}]",
                "test r11, r11",
                "jz 3f",
                "mov r10d, edi",
                "cmp r10d, 512",
                "jae 4f",
                "lea r11, [rip + {numbers}]",
                "bt qword ptr [r11], r10",
                "jc 3f",
                "mov r11, qword ptr [rip + {real}]",
                "4:",
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
                "call {takes}",
                // Neither what follows nor a jump changes the flags.
                "test al, al",
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
                "jnz {hook}",
                "mov r11, qword ptr [rip + {real}]",
                "jmp r11",
                ".cfi_endproc",
                real = sym $real,
                hook = sym $hook,
                takes = sym $takes,
                numbers = sym $numbers,
            )
        }
    };
}

stub!("prctl", prctl_stub, OPTIONS, takes_prctl, prctl_seccomp, PRCTL);
stub!("syscall", syscall_stub, SYSCALLS, takes_syscall, syscall_hook, SYSCALL);

/// AddressSanitizer asks its program for options. Not being first among the libraries is no reason to give up: where it is
/// found, nothing is recorded (see the recorder's `start::sanitizer`).
#[unsafe(no_mangle)]
pub extern "C" fn __asan_default_options() -> *const c_char {
    c"verify_asan_link_order=0".as_ptr()
}
