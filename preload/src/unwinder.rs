//! The unwinder that Rust's standard library wants, found when it is needed.
//!
//! Linked plainly, the library would load libgcc_s into every program, which costs a fifth of what starting to record costs,
//! and hardly any program would use it for us: where an exception passes through our hooks, it has an unwinder already,
//! and otherwise only a panic of ours would want one. So these hidden definitions stand in front of libgcc's
//! functions, and jump to the program's own when they are first called.
//!
//! They are jumps, so that `_Unwind_Resume` and its like find their caller's frame where they expect it.

use core::arch::global_asm;
use core::ffi::{CStr, c_char, c_int, c_void};
use core::sync::atomic::{AtomicUsize, Ordering};
use memscope_recorder::symbols;

/// The functions, in the order of the stubs.
const NAMES: [&CStr; 11] = [
    c"_Unwind_Backtrace",
    c"_Unwind_GetDataRelBase",
    c"_Unwind_GetIP",
    c"_Unwind_GetIPInfo",
    c"_Unwind_GetLanguageSpecificData",
    c"_Unwind_GetRegionStart",
    c"_Unwind_GetTextRelBase",
    c"_Unwind_RaiseException",
    c"_Unwind_Resume",
    c"_Unwind_SetGR",
    c"_Unwind_SetIP",
];

global_asm!(
    ".pushsection .text.memscope_unwinder, \"ax\", @progbits",
    ".macro memscope_unwind name, number",
    ".globl \\name",
    ".hidden \\name",
    ".type \\name, @function",
    "\\name:",
    ".cfi_startproc",
    "endbr64",
    "mov rax, [rip + memscope_unwinder + 8 * \\number]",
    "test rax, rax",
    "jnz 2f",
    "push rdi",
    ".cfi_adjust_cfa_offset 8",
    "push rsi",
    ".cfi_adjust_cfa_offset 8",
    "push rdx",
    ".cfi_adjust_cfa_offset 8",
    "mov edi, \\number",
    "call {find}",
    "pop rdx",
    ".cfi_adjust_cfa_offset -8",
    "pop rsi",
    ".cfi_adjust_cfa_offset -8",
    "pop rdi",
    ".cfi_adjust_cfa_offset -8",
    "mov [rip + memscope_unwinder + 8 * \\number], rax",
    "2:",
    "jmp rax",
    ".cfi_endproc",
    ".size \\name, . - \\name",
    ".endm",
    "memscope_unwind _Unwind_Backtrace, 0",
    "memscope_unwind _Unwind_GetDataRelBase, 1",
    "memscope_unwind _Unwind_GetIP, 2",
    "memscope_unwind _Unwind_GetIPInfo, 3",
    "memscope_unwind _Unwind_GetLanguageSpecificData, 4",
    "memscope_unwind _Unwind_GetRegionStart, 5",
    "memscope_unwind _Unwind_GetTextRelBase, 6",
    "memscope_unwind _Unwind_RaiseException, 7",
    "memscope_unwind _Unwind_Resume, 8",
    "memscope_unwind _Unwind_SetGR, 9",
    "memscope_unwind _Unwind_SetIP, 10",
    ".purgem memscope_unwind",
    ".popsection",
    // Where the functions are; 0 while that is not known.
    ".pushsection .bss.memscope_unwinder, \"aw\", @nobits",
    ".balign 8",
    "memscope_unwinder:",
    ".zero 8 * 11",
    ".popsection",
    find = sym find,
);

unsafe extern "C" {
    /// Where the functions are, see above.
    static memscope_unwinder: [AtomicUsize; NAMES.len()];
}

/// The address of a function of the program's unwinder; where it has none, libgcc's is loaded. All are found the first time.
extern "C" fn find(number: usize) -> usize {
    let all = || {
        let first = symbols::first(NAMES[0])?.1;
        let address = |name| first.symbol(name).or_else(|| Some(symbols::first(name)?.0));
        Some(NAMES.map(|name| address(name).unwrap_or(0)))
    };
    let Some(found) = all().or_else(|| loaded().then(all)?) else { std::process::abort() };
    // SAFETY: the table has as many words, all of them zero or an address.
    let table = unsafe { &memscope_unwinder };
    table.iter().zip(found).for_each(|(place, address)| place.store(address, Ordering::Relaxed));
    match found.get(number) {
        Some(&address) if address != 0 => address,
        _ => std::process::abort(),
    }
}

/// Loads libgcc's unwinder. glibc before 2.34 has `dlopen` in a library that need not be there, and a name of its own for it.
#[cold]
fn loaded() -> bool {
    type Open = unsafe extern "C" fn(*const c_char, c_int) -> *mut c_void;
    let Some((open, _)) = symbols::first(c"dlopen").or_else(|| symbols::first(c"__libc_dlopen_mode")) else {
        return false;
    };
    // SAFETY: both have this type.
    let open = unsafe { core::mem::transmute::<usize, Open>(open) };
    // SAFETY: the path is a C string.
    !unsafe { open(c"libgcc_s.so.1".as_ptr(), libc::RTLD_LAZY) }.is_null()
}
