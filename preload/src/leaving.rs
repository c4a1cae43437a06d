//! Hooks of the functions after which a program may no longer reach the trace by its path: it changes its user, its root, its
//! mounts or its namespaces, or how many files it may open.
//!
//! Before the first of them the trace is opened, and stays so (`Writer::keep_open` of the recorder). A program that calls none has
//! no descriptor of ours in its table, unless there is to be no thread of ours either.

use crate::list::Hook;
use crate::real;
use core::ffi::{c_int, c_long};
use memscope_recorder::start::leaving;
use memscope_recorder::sys::{limits, process, seal};

type Any = unsafe extern "C" fn(usize, usize, usize, usize, usize) -> c_int;

/// System calls by number that do the same.
pub const NUMBERS: [c_long; 21] = [
    libc::SYS_chroot,
    libc::SYS_pivot_root,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_mount_setattr,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_setuid,
    libc::SYS_setreuid,
    libc::SYS_setresuid,
    libc::SYS_setfsuid,
    libc::SYS_setgid,
    libc::SYS_setregid,
    libc::SYS_setresgid,
    libc::SYS_setfsgid,
    libc::SYS_setgroups,
    libc::SYS_capset,
    libc::SYS_setrlimit,
    libc::SYS_prlimit64,
    libc::SYS_landlock_restrict_self,
];

/// Before a system call of [`NUMBERS`] with these first arguments.
pub fn before_call(number: c_long, a: usize, b: usize, c: usize) {
    match number {
        libc::SYS_setrlimit => before_limit(a, b),
        // Without a new limit it only asks.
        libc::SYS_prlimit64 if c != 0 && is_ours(a) => before_limit(b, c),
        libc::SYS_prlimit64 => {}
        _ => leaving::before_leaving(),
    }
}

/// Whether `prlimit` with this process changes the caller's limits.
fn is_ours(pid: usize) -> bool {
    pid as u32 == 0 || !seal::forbids() && pid as u32 == process::pid()
}

fn before_limit(resource: usize, limit: usize) {
    if seal::forbids() {
        return;
    }
    match resource as u32 {
        // A limit that can't be read is none, or the call fails.
        libc::RLIMIT_NOFILE => {
            limits::wanted(limit).into_iter().for_each(leaving::before_limiting_descriptors);
        }
        libc::RLIMIT_FSIZE => limits::wanted(limit).into_iter().for_each(leaving::before_limiting_files),
        _ => {}
    }
}

unsafe fn pass_on(hook: Hook, number: c_long, a: usize, b: usize, c: usize, d: usize, e: usize) -> c_int {
    before_call(number, a, b, c);
    real::ready();
    // SAFETY: it takes at most as many arguments, all of them numbers or pointers.
    match unsafe { real::next::<Any>(hook) } {
        // SAFETY: the arguments are the program's.
        Some(next) => unsafe { next(a, b, c, d, e) },
        None => {
            // SAFETY: the calling thread's own `errno`.
            unsafe { *libc::__errno_location() = libc::ENOSYS };
            -1
        }
    }
}

/// One hook for each, and the system call that it makes.
macro_rules! passed_on {
    ($($name:ident $hook:ident $number:ident;)*) => {
        $(
            /// # Safety
            /// As for the function.
            pub unsafe extern "C" fn $name(a: usize, b: usize, c: usize, d: usize, e: usize) -> c_int {
                // SAFETY: as promised by the caller.
                unsafe { pass_on(Hook::$hook, libc::$number, a, b, c, d, e) }
            }
        )*
    };
}

passed_on! {
    chroot Chroot SYS_chroot;
    pivot_root PivotRoot SYS_pivot_root;
    mount Mount SYS_mount;
    unshare Unshare SYS_unshare;
    setns Setns SYS_setns;
    setuid Setuid SYS_setuid;
    seteuid Seteuid SYS_setresuid;
    setreuid Setreuid SYS_setreuid;
    setresuid Setresuid SYS_setresuid;
    setfsuid Setfsuid SYS_setfsuid;
    setgid Setgid SYS_setgid;
    setegid Setegid SYS_setresgid;
    setregid Setregid SYS_setregid;
    setresgid Setresgid SYS_setresgid;
    setfsgid Setfsgid SYS_setfsgid;
    setgroups Setgroups SYS_setgroups;
    initgroups Initgroups SYS_setgroups;
    umount Umount SYS_umount2;
    umount2 Umount2 SYS_umount2;
    capset Capset SYS_capset;
    setrlimit Setrlimit SYS_setrlimit;
    setrlimit64 Setrlimit64 SYS_setrlimit;
    prlimit Prlimit SYS_prlimit64;
    prlimit64 Prlimit64 SYS_prlimit64;
}
