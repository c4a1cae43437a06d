//! What the hooks of the functions do that start other programs (they see to it that those are recorded, too:
//! [`memscope_recorder::children`]), of those that change the environment, of `_Fork` and of `_exit`.
//!
//! glibc's functions call each other behind the hooks' back, so each one is hooked. Where the environment stays as
//! it is, the function of the same name behind us does the work, else the one that takes an environment.

use crate::list::Hook;
use crate::real;
use core::ffi::{CStr, c_char, c_int, c_void};
use memscope_recorder::children::{self, Program, Strings};
use memscope_recorder::program::fork as recorder_fork;
use memscope_recorder::start::end::{at_raw_exit, before_quick_exit};
use memscope_recorder::sys::process;

type Exec2 = unsafe extern "C" fn(*const c_char, Strings) -> c_int;
type Exec3 = unsafe extern "C" fn(*const c_char, Strings, Strings) -> c_int;
type Fexecve = unsafe extern "C" fn(c_int, Strings, Strings) -> c_int;
type Execveat = unsafe extern "C" fn(c_int, *const c_char, Strings, Strings, c_int) -> c_int;
type Spawn =
    unsafe extern "C" fn(*mut c_int, *const c_char, *const c_void, *const c_void, Strings, Strings) -> c_int;
type Wordexp = unsafe extern "C-unwind" fn(*const c_char, *mut c_void, c_int) -> c_int;
type QuickExit = unsafe extern "C-unwind" fn(c_int) -> !;
type ExitAtOnce = unsafe extern "C" fn(c_int) -> !;
type Fork = unsafe extern "C" fn() -> c_int;
type System = unsafe extern "C-unwind" fn(*const c_char) -> c_int;
type SetEnv = unsafe extern "C-unwind" fn(*const c_char, *const c_char, c_int) -> c_int;
type OfText = unsafe extern "C-unwind" fn(*mut c_char) -> c_int;
type ClearEnv = unsafe extern "C-unwind" fn() -> c_int;
type Popen = unsafe extern "C-unwind" fn(*const c_char, *const c_char) -> *mut c_void;

unsafe extern "C" {
    static mut environ: Strings;
}

fn own_environment() -> Strings {
    // SAFETY: the program's to keep right, as for libc itself.
    unsafe { environ }
}

fn next<T: Copy>(hook: Hook) -> Option<T> {
    real::ready();
    // SAFETY: each caller names the function's own type.
    unsafe { real::next(hook) }
}

/// No such function behind us.
fn refuse() -> c_int {
    // SAFETY: the calling thread's own `errno`.
    unsafe { *libc::__errno_location() = libc::ENOSYS };
    -1
}

/// What stands there; nothing where nothing can be read.
///
/// # Safety
/// An address outside of memory or a C string that lives for `'a`.
pub unsafe fn text<'a>(text: *const c_char) -> &'a CStr {
    // SAFETY: as promised by the caller.
    if text.is_null() || !children::is_text(text) { c"" } else { unsafe { CStr::from_ptr(text) } }
}

/// # Safety
/// As for `text`.
unsafe fn searched<'a>(name: *const c_char) -> Program<'a> {
    // SAFETY: as promised by the caller; the process's own environment has the `PATH` that counts.
    unsafe { Program::Search(text(name), children::directories(own_environment())) }
}

/// `execve` and, with the environment as it is, a function that takes none.
///
/// # Safety
/// As for `execve`.
unsafe fn become_program(
    program: Program<'_>,
    argv: Strings,
    envp: Strings,
    plain: impl FnOnce() -> Option<c_int>,
    with_environment: impl FnOnce(Strings) -> c_int,
) -> c_int {
    // SAFETY: as promised by the caller.
    unsafe {
        children::exec(program, argv, envp, |changed| {
            let same = core::ptr::eq(changed, envp);
            same.then(plain).flatten().unwrap_or_else(|| with_environment(changed))
        })
    }
}

/// # Safety
/// As for the function.
pub unsafe extern "C" fn execve(path: *const c_char, argv: Strings, envp: Strings) -> c_int {
    let Some(next) = next::<Exec3>(Hook::Execve) else { return refuse() };
    // SAFETY: as promised by the caller.
    unsafe { children::exec(Program::Path(text(path)), argv, envp, |envp| next(path, argv, envp)) }
}

/// # Safety
/// As for the function.
pub unsafe extern "C" fn execv(path: *const c_char, argv: Strings) -> c_int {
    // SAFETY: as promised by the caller.
    unsafe { run(Hook::Execv, Hook::Execve, path, Program::Path(text(path)), argv) }
}

/// # Safety
/// As for the function.
pub unsafe extern "C" fn execvp(file: *const c_char, argv: Strings) -> c_int {
    // SAFETY: as promised by the caller.
    unsafe { run(Hook::Execvp, Hook::Execvpe, file, searched(file), argv) }
}

/// With the process's own environment: `plain` takes none, `full` does.
unsafe fn run(plain: Hook, full: Hook, file: *const c_char, program: Program<'_>, argv: Strings) -> c_int {
    let Some(full) = next::<Exec3>(full) else { return refuse() };
    let plain = || {
        let plain = next::<Exec2>(plain)?;
        // SAFETY: as promised by the caller.
        Some(unsafe { plain(file, argv) })
    };
    // SAFETY: as promised by the caller.
    unsafe { become_program(program, argv, own_environment(), plain, |envp| full(file, argv, envp)) }
}

/// # Safety
/// As for the function.
pub unsafe extern "C" fn execvpe(file: *const c_char, argv: Strings, envp: Strings) -> c_int {
    let Some(next) = next::<Exec3>(Hook::Execvpe) else { return refuse() };
    // SAFETY: as promised by the caller.
    unsafe { children::exec(searched(file), argv, envp, |envp| next(file, argv, envp)) }
}

/// The arguments behind the first of a function that takes any number of them: five came in registers, the others on
/// the stack.
#[derive(Clone, Copy)]
struct List {
    first: *const usize,
    others: *const usize,
}

impl List {
    const IN_REGISTERS: usize = 5;

    /// # Safety
    /// The caller passed at least so many.
    unsafe fn get(self, index: usize) -> usize {
        // SAFETY: as promised.
        unsafe {
            match index.checked_sub(Self::IN_REGISTERS) {
                None => *self.first.add(index),
                Some(index) => *self.others.add(index),
            }
        }
    }

    /// Calls with the arguments up to the null pointer as an array, and with what stands behind that.
    ///
    /// # Safety
    /// There is a null pointer among them; `behind` says that there is another argument after it.
    unsafe fn with_array(self, behind: bool, call: impl FnOnce(Strings, usize) -> c_int) -> c_int {
        // SAFETY: as promised: nothing behind the null pointer is read unless it is there.
        unsafe {
            let count = (0..).take_while(|&index| self.get(index) != 0).count();
            let after = if behind { self.get(count + 1) } else { 0 };
            children::with_words(count + 1, |words| {
                let Some(words) = words else {
                    *libc::__errno_location() = libc::ENOMEM;
                    return -1;
                };
                for (index, word) in words.iter_mut().enumerate().take(count + 1) {
                    word.write(self.get(index));
                }
                call(words.as_ptr().cast(), after)
            })
        }
    }
}

/// # Safety
/// As for the function; the lists hold its other arguments.
pub unsafe extern "C" fn execl(path: *const c_char, first: *const usize, others: *const usize) -> c_int {
    // SAFETY: as promised by the caller.
    unsafe { List { first, others }.with_array(false, |argv, _| execv(path, argv)) }
}

/// # Safety
/// As for the function; the lists hold its other arguments.
pub unsafe extern "C" fn execlp(file: *const c_char, first: *const usize, others: *const usize) -> c_int {
    // SAFETY: as promised by the caller.
    unsafe { List { first, others }.with_array(false, |argv, _| execvp(file, argv)) }
}

/// # Safety
/// As for the function; the lists hold its other arguments.
pub unsafe extern "C" fn execle(path: *const c_char, first: *const usize, others: *const usize) -> c_int {
    // SAFETY: as promised by the caller.
    unsafe { List { first, others }.with_array(true, |argv, envp| execve(path, argv, envp as Strings)) }
}

/// # Safety
/// As for the function.
pub unsafe extern "C" fn fexecve(fd: c_int, argv: Strings, envp: Strings) -> c_int {
    let Some(next) = next::<Fexecve>(Hook::Fexecve) else { return refuse() };
    // SAFETY: as promised by the caller.
    unsafe { children::exec(Program::At(fd, c""), argv, envp, |envp| next(fd, argv, envp)) }
}

/// Before glibc 2.34 there is none behind us; then the kernel does it all the same.
///
/// # Safety
/// As for the function.
pub unsafe extern "C" fn execveat(
    at: c_int,
    path: *const c_char,
    argv: Strings,
    envp: Strings,
    flags: c_int,
) -> c_int {
    let next = next::<Execveat>(Hook::Execveat);
    // SAFETY: as promised by the caller.
    unsafe {
        children::exec(Program::At(at, text(path)), argv, envp, |envp| match next {
            Some(next) => next(at, path, argv, envp, flags),
            None => libc::syscall(libc::SYS_execveat, at, path, argv, envp, flags) as c_int,
        })
    }
}

/// # Safety
/// As for the function.
pub unsafe extern "C" fn posix_spawn(
    pid: *mut c_int,
    path: *const c_char,
    actions: *const c_void,
    attributes: *const c_void,
    argv: Strings,
    envp: Strings,
) -> c_int {
    let Some(next) = next::<Spawn>(Hook::PosixSpawn) else { return libc::ENOSYS };
    // SAFETY: as promised by the caller.
    unsafe {
        start(pid, Program::Path(text(path)), argv, envp, |pid, envp| {
            next(pid, path, actions, attributes, argv, envp)
        })
    }
}

/// # Safety
/// As for the function.
pub unsafe extern "C" fn posix_spawnp(
    pid: *mut c_int,
    file: *const c_char,
    actions: *const c_void,
    attributes: *const c_void,
    argv: Strings,
    envp: Strings,
) -> c_int {
    let Some(next) = next::<Spawn>(Hook::PosixSpawnp) else { return libc::ENOSYS };
    // SAFETY: as promised by the caller.
    unsafe {
        start(pid, searched(file), argv, envp, |pid, envp| next(pid, file, actions, attributes, argv, envp))
    }
}

/// The caller need not want to know the process's id, but we do.
unsafe fn start(
    pid: *mut c_int,
    program: Program<'_>,
    argv: Strings,
    envp: Strings,
    call: impl FnOnce(*mut c_int, Strings) -> c_int,
) -> c_int {
    let mut own = 0;
    let pid = if pid.is_null() { &raw mut own } else { pid };
    // SAFETY: as promised by the caller; the id is written where the call succeeded.
    unsafe {
        children::spawn(program, argv, envp, |envp| {
            let result = call(pid, envp);
            (result, (result == 0).then(|| (*pid).unsigned_abs()))
        })
    }
}

/// What a glibc without `pidfd_spawn` can do: a program that finds the name here counts on the function.
unsafe fn described(pidfd: *mut c_int, start: impl FnOnce(*mut c_int) -> c_int) -> c_int {
    let mut pid = 0;
    match start(&raw mut pid) {
        0 => match process::descriptor(pid.unsigned_abs()) {
            Ok(descriptor) => {
                // SAFETY: as promised by the caller, the place is there for it.
                unsafe { pidfd.write(descriptor) };
                0
            }
            Err(error) => error.0,
        },
        error => error,
    }
}

/// As `posix_spawn`, but a descriptor stands for the process. glibc has it since 2.39.
///
/// # Safety
/// As for the function.
pub unsafe extern "C" fn pidfd_spawn(
    pidfd: *mut c_int,
    path: *const c_char,
    actions: *const c_void,
    attributes: *const c_void,
    argv: Strings,
    envp: Strings,
) -> c_int {
    let Some(next) = next::<Spawn>(Hook::PidfdSpawn) else {
        // SAFETY: as promised by the caller.
        return unsafe { described(pidfd, |pid| posix_spawn(pid, path, actions, attributes, argv, envp)) };
    };
    // SAFETY: as promised by the caller; the descriptor is written where the call succeeded.
    unsafe {
        children::spawn(Program::Path(text(path)), argv, envp, |envp| {
            let result = next(pidfd, path, actions, attributes, argv, envp);
            (result, if result == 0 { process::of_descriptor(*pidfd) } else { None })
        })
    }
}

/// # Safety
/// As for the function.
pub unsafe extern "C" fn pidfd_spawnp(
    pidfd: *mut c_int,
    file: *const c_char,
    actions: *const c_void,
    attributes: *const c_void,
    argv: Strings,
    envp: Strings,
) -> c_int {
    let Some(next) = next::<Spawn>(Hook::PidfdSpawnp) else {
        // SAFETY: as promised by the caller.
        return unsafe { described(pidfd, |pid| posix_spawnp(pid, file, actions, attributes, argv, envp)) };
    };
    // SAFETY: as promised by the caller; the descriptor is written where the call succeeded.
    unsafe {
        children::spawn(searched(file), argv, envp, |envp| {
            let result = next(pidfd, file, actions, attributes, argv, envp);
            (result, if result == 0 { process::of_descriptor(*pidfd) } else { None })
        })
    }
}

/// What stands in `$(...)` is given to a shell.
///
/// # Safety
/// As for the function.
pub unsafe extern "C-unwind" fn wordexp(words: *const c_char, into: *mut c_void, flags: c_int) -> c_int {
    let Some(next) = next::<Wordexp>(Hook::Wordexp) else { return refuse() };
    // SAFETY: as promised by the caller.
    unsafe { children::shell(&raw mut environ, || next(words, into, flags)) }
}

/// # Safety
/// As for the function.
pub unsafe extern "C-unwind" fn system(command: *const c_char) -> c_int {
    let Some(next) = next::<System>(Hook::System) else { return refuse() };
    // SAFETY: as promised by the caller.
    unsafe { children::shell(&raw mut environ, || next(command)) }
}

/// # Safety
/// As for the function.
pub unsafe extern "C-unwind" fn popen(command: *const c_char, kind: *const c_char) -> *mut c_void {
    let Some(next) = next::<Popen>(Hook::Popen) else {
        refuse();
        return core::ptr::null_mut();
    };
    // SAFETY: as promised by the caller.
    unsafe { children::shell(&raw mut environ, || next(command, kind)) }
}

/// # Safety
/// As for the function.
pub unsafe extern "C-unwind" fn setenv(name: *const c_char, value: *const c_char, replace: c_int) -> c_int {
    let Some(next) = next::<SetEnv>(Hook::Setenv) else { return refuse() };
    // SAFETY: as promised by the caller.
    children::environment_change(|| unsafe { next(name, value, replace) })
}

/// # Safety
/// As for the function.
pub unsafe extern "C-unwind" fn unsetenv(name: *mut c_char) -> c_int {
    let Some(next) = next::<OfText>(Hook::Unsetenv) else { return refuse() };
    // SAFETY: as promised by the caller.
    children::environment_change(|| unsafe { next(name) })
}

/// # Safety
/// As for the function.
pub unsafe extern "C-unwind" fn putenv(entry: *mut c_char) -> c_int {
    let Some(next) = next::<OfText>(Hook::Putenv) else { return refuse() };
    // SAFETY: as promised by the caller.
    children::environment_change(|| unsafe { next(entry) })
}

/// # Safety
/// As for the function.
pub unsafe extern "C-unwind" fn clearenv() -> c_int {
    let Some(next) = next::<ClearEnv>(Hook::Clearenv) else { return refuse() };
    // SAFETY: as promised by the caller.
    children::environment_change(|| unsafe { next() })
}

/// libc's `fork` calls the recorder by itself. Before glibc 2.34 there is no `_Fork` behind us; then the kernel does it
/// all the same.
///
/// # Safety
/// As for the function.
pub unsafe extern "C" fn fork() -> c_int {
    recorder_fork::before();
    let child = match next::<Fork>(Hook::Fork) {
        // SAFETY: as promised by the caller.
        Some(next) => unsafe { next() },
        // SAFETY: the child has a copy of everything.
        None => unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) as c_int },
    };
    if child == 0 {
        recorder_fork::child();
    } else {
        recorder_fork::after();
    }
    child
}

/// `quick_exit`: its handlers are not told the status.
///
/// # Safety
/// As for the function.
pub unsafe extern "C-unwind" fn quick_exit(status: c_int) -> ! {
    before_quick_exit(status);
    real::ready();
    match next::<QuickExit>(Hook::QuickExit) {
        // SAFETY: as promised by the caller.
        Some(next) => unsafe { next(status) },
        // SAFETY: as promised; no libc is without the one and has the other.
        None => unsafe { exit_at_once(status) },
    }
}

/// `_exit` and `_Exit`: of a process that nobody waits for, only the call tells how it ended.
///
/// # Safety
/// As for the function.
pub unsafe extern "C" fn exit_at_once(status: c_int) -> ! {
    at_raw_exit(status);
    match next::<ExitAtOnce>(Hook::ExitAtOnce) {
        // SAFETY: as promised by the caller.
        Some(next) => unsafe { next(status) },
        None => loop {
            // SAFETY: ends the process.
            unsafe { libc::syscall(libc::SYS_exit_group, status) };
        },
    }
}
