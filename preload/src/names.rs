//! The functions by which the Rust library tells the names of blocks. It finds them by `dlsym`.
//!
//! As the hooks they begin with a stub that passes on where the caller is: a signal handler may come in between and allocate,
//! and then unwinding must be able to tell whose call it interrupted.

use core::arch::naked_asm;
use core::ffi::{c_int, c_void};
use core::slice::from_raw_parts;
use memscope_recorder::program::naming::{self, Outcome};

/// A text: any bytes.
#[repr(C)]
#[derive(Debug)]
pub struct Text {
    bytes: *const u8,
    length: usize,
}

impl Text {
    /// # Safety
    /// The bytes are readable.
    unsafe fn bytes<'a>(&self) -> &'a [u8] {
        if self.bytes.is_null() {
            return &[];
        }
        // SAFETY: as promised.
        unsafe { from_raw_parts(self.bytes, self.length) }
    }
}

/// `uint64_t memscope_define_name(const struct { const char *bytes; size_t length; } texts[3])`: tells a name, its type and
/// its scope. Returns the name's id, 0 where nothing is recorded.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memscope_define_name(_texts: *const [Text; 3]) -> u64 {
    naked_asm!(
        ".cfi_startproc",
        "endbr64",
        "mov rsi, rsp",
        "mov rdx, rbp",
        "jmp {define}",
        ".cfi_endproc",
        define = sym define,
    )
}

unsafe extern "C" fn define(texts: *const [Text; 3], sp: usize, bp: usize) -> u64 {
    // SAFETY: the caller's promise; `sp` and `bp` as the stub found them.
    unsafe {
        let [name, type_name, scope] = &*texts;
        naming::define(name.bytes(), type_name.bytes(), scope.bytes(), sp, bp)
    }
}

/// `int memscope_name_block(const void *address, size_t reach, uint64_t id)`: the block at the address belongs to the
/// variable with this name; where `reach` is not 0, it is the block around the address, which begins at most that many
/// bytes before. Id 0: the variable is gone. Returns 1 where the id is not one of this process's: then the name is to
/// be defined again (a forked child knows none of its parent's).
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memscope_name_block(_address: *const c_void, _reach: usize, _id: u64) -> c_int {
    naked_asm!(
        ".cfi_startproc",
        "endbr64",
        "mov rcx, rsp",
        "mov r8, rbp",
        "jmp {name}",
        ".cfi_endproc",
        name = sym name,
    )
}

unsafe extern "C" fn name(address: *const c_void, reach: usize, id: u64, sp: usize, bp: usize) -> c_int {
    // SAFETY: `sp` and `bp` as the stub found them.
    let outcome = unsafe { naming::name(address as usize, reach, id, sp, bp) };
    c_int::from(outcome == Outcome::Unknown)
}
