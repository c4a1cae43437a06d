//! Every hooked function, once. The exported symbols, the table of real functions and the tests that look
//! at the library's symbols all derive from this list.
//!
//! An exported symbol is a stub of three instructions: it appends the caller's `rsp` (the address of the return address)
//! and `rbp` to the arguments and jumps to the hook, so that unwinding can start right at the caller and none of
//! our frames is ever met. The stub changes no register that its CFI (that of any function at its
//! first instruction) speaks of.

use crate::{c, cxx};
use core::arch::naked_asm;
use core::sync::atomic::AtomicUsize;

/// The stub's moves, by number of arguments.
macro_rules! pass_frame {
    (1) => {
        "mov rsi, rsp\nmov rdx, rbp"
    };
    (2) => {
        "mov rdx, rsp\nmov rcx, rbp"
    };
    (3) => {
        "mov rcx, rsp\nmov r8, rbp"
    };
}

macro_rules! hooks {
    ($($id:ident $symbol:literal ($arguments:tt) => $hook:path;)*) => {
        /// A hooked function.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(usize)]
        pub enum Hook { $($id),* }

        /// Names of the hooked functions, with a final NUL, in the order of [`Hook`].
        pub const NAMES: &[&core::ffi::CStr] = &[$({
            match core::ffi::CStr::from_bytes_with_nul(concat!($symbol, "\0").as_bytes()) {
                Ok(name) => name,
                Err(_) => panic!("a name holds no NUL"),
            }
        }),*];

        /// Hooks by index, for [`crate::real`].
        pub const ALL: &[Hook] = &[$(Hook::$id),*];

        /// Addresses of the real functions; 0 while not looked up, or where there is none.
        pub static REAL: [AtomicUsize; NAMES.len()] = [const { AtomicUsize::new(0) }; NAMES.len()];

        mod stubs {
            use super::*;
            $(
                #[unsafe(naked)]
                #[unsafe(export_name = $symbol)]
                #[allow(non_snake_case)]
                unsafe extern "C" fn $id() {
                    naked_asm!(
                        ".cfi_startproc",
                        "endbr64",
                        pass_frame!($arguments),
                        "jmp {hook}",
                        ".cfi_endproc",
                        hook = sym $hook,
                    )
                }
            )*
        }
    };
}

hooks! {
    Malloc "malloc" (1) => c::malloc;
    Calloc "calloc" (2) => c::calloc;
    Realloc "realloc" (2) => c::realloc;
    Free "free" (1) => c::free;
    Reallocarray "reallocarray" (3) => c::reallocarray;
    Cfree "cfree" (1) => c::cfree;
    Memalign "memalign" (2) => c::memalign;
    PosixMemalign "posix_memalign" (3) => c::posix_memalign;
    AlignedAlloc "aligned_alloc" (2) => c::aligned_alloc;
    Valloc "valloc" (1) => c::valloc;
    Pvalloc "pvalloc" (1) => c::pvalloc;
    FreeSized "free_sized" (2) => c::free_sized;
    FreeAlignedSized "free_aligned_sized" (3) => c::free_aligned_sized;
    MallocUsableSize "malloc_usable_size" (1) => c::malloc_usable_size;

    New "_Znwm" (1) => cxx::new;
    NewArray "_Znam" (1) => cxx::new_array;
    NewNothrow "_ZnwmRKSt9nothrow_t" (2) => cxx::new_nothrow;
    NewArrayNothrow "_ZnamRKSt9nothrow_t" (2) => cxx::new_array_nothrow;
    NewAligned "_ZnwmSt11align_val_t" (2) => cxx::new_aligned;
    NewArrayAligned "_ZnamSt11align_val_t" (2) => cxx::new_array_aligned;
    NewAlignedNothrow "_ZnwmSt11align_val_tRKSt9nothrow_t" (3) => cxx::new_aligned_nothrow;
    NewArrayAlignedNothrow "_ZnamSt11align_val_tRKSt9nothrow_t" (3) => cxx::new_array_aligned_nothrow;
    Delete "_ZdlPv" (1) => cxx::delete;
    DeleteArray "_ZdaPv" (1) => cxx::delete_array;
    DeleteNothrow "_ZdlPvRKSt9nothrow_t" (2) => cxx::delete_nothrow;
    DeleteArrayNothrow "_ZdaPvRKSt9nothrow_t" (2) => cxx::delete_array_nothrow;
    DeleteSized "_ZdlPvm" (2) => cxx::delete_sized;
    DeleteArraySized "_ZdaPvm" (2) => cxx::delete_array_sized;
    DeleteAligned "_ZdlPvSt11align_val_t" (2) => cxx::delete_aligned;
    DeleteArrayAligned "_ZdaPvSt11align_val_t" (2) => cxx::delete_array_aligned;
    DeleteAlignedNothrow "_ZdlPvSt11align_val_tRKSt9nothrow_t" (3) => cxx::delete_aligned_nothrow;
    DeleteArrayAlignedNothrow "_ZdaPvSt11align_val_tRKSt9nothrow_t" (3) => cxx::delete_array_aligned_nothrow;
    DeleteSizedAligned "_ZdlPvmSt11align_val_t" (3) => cxx::delete_sized_aligned;
    DeleteArraySizedAligned "_ZdaPvmSt11align_val_t" (3) => cxx::delete_array_sized_aligned;
}
