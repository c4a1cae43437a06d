//! Every hooked function, once. The exported symbols, the table of real functions and the tests that look
//! at the library's symbols all derive from this list.
//!
//! An exported allocation function is a stub of three instructions: it appends the caller's `rsp` (the address of the return address)
//! and `rbp` to the arguments and jumps to the hook, so that unwinding can start right at the caller and none of
//! our frames is ever met. The stub changes no register that its CFI (that of any function at its
//! first instruction) speaks of.
//!
//! Two hooked functions are not here: `prctl` and `syscall` are called for many other things and may return twice, so their stubs decide
//! before anything is changed whether there is a hook to jump to ([`crate::sandbox`]).
//!
//! The functions that start programs need none of that: their stub jumps, or, where the arguments have no fixed number,
//! puts those of the registers into memory.

use crate::{c, cxx, leaving, programs, stacks};
use core::arch::naked_asm;
use core::sync::atomic::AtomicUsize;

/// The stub's way into the hook: by number of arguments, where the hook wants to know its caller's frame.
macro_rules! enter {
    (1) => {
        "mov rsi, rsp\nmov rdx, rbp\njmp {hook}"
    };
    (2) => {
        "mov rdx, rsp\nmov rcx, rbp\njmp {hook}"
    };
    (3) => {
        "mov rcx, rsp\nmov r8, rbp\njmp {hook}"
    };
    (plain) => {
        "jmp {hook}"
    };
    // (first, address of the next five, address of the others): `crate::programs::List`.
    (list) => {
        "sub rsp, 56\n.cfi_adjust_cfa_offset 56\n\
         mov [rsp], rsi\nmov [rsp + 8], rdx\nmov [rsp + 16], rcx\nmov [rsp + 24], r8\nmov [rsp + 32], r9\n\
         mov rsi, rsp\nlea rdx, [rsp + 64]\ncall {hook}\n\
         add rsp, 56\n.cfi_adjust_cfa_offset -56\nret"
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
                        enter!($arguments),
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

    Execve "execve" (plain) => programs::execve;
    Execv "execv" (plain) => programs::execv;
    Execvp "execvp" (plain) => programs::execvp;
    Execvpe "execvpe" (plain) => programs::execvpe;
    Execl "execl" (list) => programs::execl;
    Execlp "execlp" (list) => programs::execlp;
    Execle "execle" (list) => programs::execle;
    Fexecve "fexecve" (plain) => programs::fexecve;
    Execveat "execveat" (plain) => programs::execveat;
    PosixSpawn "posix_spawn" (plain) => programs::posix_spawn;
    PosixSpawnp "posix_spawnp" (plain) => programs::posix_spawnp;
    PidfdSpawn "pidfd_spawn" (plain) => programs::pidfd_spawn;
    PidfdSpawnp "pidfd_spawnp" (plain) => programs::pidfd_spawnp;
    Wordexp "wordexp" (plain) => programs::wordexp;
    System "system" (plain) => programs::system;
    Popen "popen" (plain) => programs::popen;
    Setenv "setenv" (plain) => programs::setenv;
    Unsetenv "unsetenv" (plain) => programs::unsetenv;
    Putenv "putenv" (plain) => programs::putenv;
    Clearenv "clearenv" (plain) => programs::clearenv;
    Fork "_Fork" (plain) => programs::fork;
    ExitAtOnce "_exit" (plain) => programs::exit_at_once;
    ExitAtOnceC "_Exit" (plain) => programs::exit_at_once;
    QuickExit "quick_exit" (plain) => programs::quick_exit;

    Chroot "chroot" (plain) => leaving::chroot;
    PivotRoot "pivot_root" (plain) => leaving::pivot_root;
    Mount "mount" (plain) => leaving::mount;
    Unshare "unshare" (plain) => leaving::unshare;
    Setns "setns" (plain) => leaving::setns;
    Setuid "setuid" (plain) => leaving::setuid;
    Seteuid "seteuid" (plain) => leaving::seteuid;
    Setreuid "setreuid" (plain) => leaving::setreuid;
    Setresuid "setresuid" (plain) => leaving::setresuid;
    Setfsuid "setfsuid" (plain) => leaving::setfsuid;
    Setgid "setgid" (plain) => leaving::setgid;
    Setegid "setegid" (plain) => leaving::setegid;
    Setregid "setregid" (plain) => leaving::setregid;
    Setresgid "setresgid" (plain) => leaving::setresgid;
    Setfsgid "setfsgid" (plain) => leaving::setfsgid;
    Setgroups "setgroups" (plain) => leaving::setgroups;
    Initgroups "initgroups" (plain) => leaving::initgroups;
    Umount "umount" (plain) => leaving::umount;
    Umount2 "umount2" (plain) => leaving::umount2;
    Capset "capset" (plain) => leaving::capset;
    Setrlimit "setrlimit" (plain) => leaving::setrlimit;
    Setrlimit64 "setrlimit64" (plain) => leaving::setrlimit64;
    Prlimit "prlimit" (plain) => leaving::prlimit;
    Prlimit64 "prlimit64" (plain) => leaving::prlimit64;

    PthreadAttrSetstack "pthread_attr_setstack" (plain) => stacks::pthread_attr_setstack;
    PthreadAttrSetstackaddr "pthread_attr_setstackaddr" (plain) => stacks::pthread_attr_setstackaddr;
    PthreadAttrSetguardsize "pthread_attr_setguardsize" (plain) => stacks::pthread_attr_setguardsize;
}

impl Hook {
    /// A form of C++'s `new` or `delete`.
    #[must_use]
    pub const fn is_operator(self) -> bool {
        self as usize >= Self::New as usize && self as usize <= Self::DeleteArraySizedAligned as usize
    }
}
