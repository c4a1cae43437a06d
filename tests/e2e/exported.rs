//! The library's dynamic symbol table: what it shows to the program, and what it needs of it.

use memscope_tests::artifacts;
use memscope_tests::elf::{dynamic_symbols, needed};

/// The malloc family.
const C: [&str; 14] = [
    "malloc",
    "calloc",
    "realloc",
    "reallocarray",
    "free",
    "cfree",
    "memalign",
    "posix_memalign",
    "aligned_alloc",
    "valloc",
    "pvalloc",
    "free_sized",
    "free_aligned_sized",
    "malloc_usable_size",
];

/// Every form of operator new and delete, as the Itanium ABI names them.
const CXX: [&str; 20] = [
    "_Znwm",
    "_Znam",
    "_ZnwmRKSt9nothrow_t",
    "_ZnamRKSt9nothrow_t",
    "_ZnwmSt11align_val_t",
    "_ZnamSt11align_val_t",
    "_ZnwmSt11align_val_tRKSt9nothrow_t",
    "_ZnamSt11align_val_tRKSt9nothrow_t",
    "_ZdlPv",
    "_ZdaPv",
    "_ZdlPvm",
    "_ZdaPvm",
    "_ZdlPvRKSt9nothrow_t",
    "_ZdaPvRKSt9nothrow_t",
    "_ZdlPvSt11align_val_t",
    "_ZdaPvSt11align_val_t",
    "_ZdlPvmSt11align_val_t",
    "_ZdaPvmSt11align_val_t",
    "_ZdlPvSt11align_val_tRKSt9nothrow_t",
    "_ZdaPvSt11align_val_tRKSt9nothrow_t",
];

/// What starts other programs or processes, or ends one, and what makes the environment that they get.
const PROGRAMS: [&str; 24] = [
    "execve",
    "execv",
    "execvp",
    "execvpe",
    "execl",
    "execlp",
    "execle",
    "fexecve",
    "execveat",
    "posix_spawn",
    "posix_spawnp",
    "pidfd_spawn",
    "pidfd_spawnp",
    "wordexp",
    "system",
    "popen",
    "setenv",
    "unsetenv",
    "putenv",
    "clearenv",
    "_Fork",
    "_exit",
    "_Exit",
    "quick_exit",
];
/// What may take the trace out of reach.
const LEAVING: [&str; 24] = [
    "chroot",
    "pivot_root",
    "mount",
    "unshare",
    "setns",
    "setuid",
    "seteuid",
    "setreuid",
    "setresuid",
    "setfsuid",
    "setgid",
    "setegid",
    "setregid",
    "setresgid",
    "setfsgid",
    "setgroups",
    "initgroups",
    "umount",
    "umount2",
    "capset",
    "setrlimit",
    "setrlimit64",
    "prlimit",
    "prlimit64",
];
/// What else is answered: calls that may restrict the program's system calls, those that give a thread a stack without a guard page,
/// and AddressSanitizer's question for options.
const OTHERS: [&str; 6] = [
    "prctl",
    "syscall",
    "pthread_attr_setstack",
    "pthread_attr_setstackaddr",
    "pthread_attr_setguardsize",
    "__asan_default_options",
];

#[test]
fn every_hooked_function_is_exported() {
    let symbols = dynamic_symbols(&artifacts::library());
    for name in PROGRAMS.into_iter().chain(LEAVING).chain(OTHERS) {
        assert!(symbols.iter().any(|s| s.defined && s.name == name), "{name} is not exported");
    }
    // malloc_usable_size allocates nothing: it may be left to the allocator.
    for name in C.iter().filter(|name| **name != "malloc_usable_size") {
        assert!(symbols.iter().any(|s| s.defined && s.name == *name), "{name} is not exported");
    }
}

#[test]
fn nothing_else_is_exported() {
    let symbols = dynamic_symbols(&artifacts::library());
    let others: Vec<_> = symbols
        .iter()
        .filter(|s| s.defined)
        .map(|s| s.name.as_str())
        .filter(|name| ![&C[..], &CXX, &PROGRAMS, &LEAVING, &OTHERS].iter().any(|known| known.contains(name)))
        .filter(|name| !name.starts_with("memscope_"))
        .collect();
    assert!(others.is_empty(), "exported, but neither hooked nor memscope's: {others:?}");
}

/// (major, minor) of `GLIBC_2.31`.
fn version(name: &str) -> Option<(u32, u32)> {
    let mut parts = name.strip_prefix("GLIBC_")?.split('.').map(|part| part.parse().ok());
    Some((parts.next()??, parts.next()??))
}

#[test]
fn nothing_newer_than_glibc_2_31_is_needed() {
    let symbols = dynamic_symbols(&artifacts::library());
    let versions: Vec<_> = symbols.iter().filter(|s| !s.defined).map(|s| (s, version(&s.version))).collect();
    assert!(versions.iter().any(|(_, v)| v.is_some()), "it needs something of glibc");
    for (symbol, version) in versions {
        let private = symbol.version == "GLIBC_PRIVATE";
        assert!(!private && version.is_none_or(|v| v <= (2, 31)), "needs {symbol:?}");
    }
}

/// In a program that has no C++ or compression library, ours must not bring one in.
#[test]
fn only_glibcs_own_libraries_are_needed() {
    let allowed =
        ["libc.so.6", "ld-linux-x86-64.so.2", "libdl.so.2", "libpthread.so.0", "libgcc_s.so.1", "libm.so.6"];
    let others: Vec<_> =
        needed(&artifacts::library()).into_iter().filter(|name| !allowed.contains(&name.as_str())).collect();
    assert!(others.is_empty(), "needs {others:?}");
}

/// The copy that the command line carries is the library that is built on its own.
#[test]
fn the_carried_library_is_the_same() {
    let printed = memscope_tests::Cmd::new([artifacts::cli()]).arg("preload-path").run().success().out();
    let carried = std::path::PathBuf::from(printed.trim_end());
    assert!(carried.is_absolute(), "{printed:?}");
    let exports = |library: &std::path::Path| {
        let mut names: Vec<_> =
            dynamic_symbols(library).into_iter().filter(|s| s.defined).map(|s| s.name).collect();
        names.sort();
        names
    };
    assert_eq!(exports(&carried), exports(&artifacts::library()));
}
