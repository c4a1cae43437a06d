//! The program's process: made first, named after, and let go when its recording has a place.
//!
//! ```text
//! us      fork ──────────────── make the directory ── write its path, shut ───── read the error
//!           \                                           |                          ^
//! child      wait for the path ─────────────────────────+─ execve ── (fails) ──────+
//! ```
//!
//! Both go over one pair of sockets: where few files may be open, each one counts. The default directory carries the program's process id, and has to exist before the program runs.

use std::ffi::{CStr, CString, c_char};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::ptr;

use super::limits::OpenFiles;
use super::signals::Signals;
use super::{environment, inherited};
use crate::preflight::SHELL;

/// What is to be run.
pub struct Plan {
    /// Path of the program.
    pub path: CString,
    /// Its arguments, beginning with its name.
    pub args: Vec<CString>,
    /// Its environment but for the place of the recording.
    pub environment: Vec<CString>,
    /// What it may open.
    pub files: OpenFiles,
}

/// A child that waits to become the program. Dropped, it ends.
pub struct Waiting {
    pid: i32,
    /// The child waits for the path at the other end. An error comes from there, or its end when the program runs.
    gate: UnixStream,
}

impl Waiting {
    /// Makes the child.
    pub fn start(plan: &Plan, signals: &Signals) -> io::Result<Self> {
        let (gate, childs) = UnixStream::pair()?;
        // SAFETY: this process has one thread, so the child may use all of Rust. It never returns from here.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            0 => {
                // Our own end: with it open, the child would wait for itself.
                drop(gate);
                become_the_program(plan, signals, childs)
            }
            pid => Ok(Self { pid, gate }),
        }
    }

    /// The id that the program will have.
    pub const fn pid(&self) -> i32 {
        self.pid
    }

    /// Lets the child become the program, which records into this directory.
    pub fn go(self, directory: &Path) -> io::Result<()> {
        let Self { pid, mut gate } = self;
        let path = directory.as_os_str().as_encoded_bytes();
        // The NUL behind it says that it is whole. A child that died is noticed below.
        let _ = gate.write_all(&[path, b"\0"].concat());
        let _ = gate.shutdown(Shutdown::Write);
        let mut number = [0; 4];
        match gate.read_exact(&mut number) {
            // The other end is closed: `execve` did that.
            Err(_) => Ok(()),
            Ok(()) => {
                reap(pid);
                Err(io::Error::from_raw_os_error(i32::from_ne_bytes(number)))
            }
        }
    }

    /// Lets the child end without having become anything.
    pub fn cancel(self) {
        drop(self.gate);
        reap(self.pid);
    }
}

/// Takes the end of a child that is ending.
fn reap(pid: i32) {
    let mut status = 0;
    // SAFETY: `status` is ours to be written; the child is ours and not yet waited for.
    while unsafe { libc::waitpid(pid, &raw mut status, 0) } == -1
        && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
    {}
}

/// The child's way. Ends in the program, or in an error that is told to the parent.
fn become_the_program(plan: &Plan, signals: &Signals, mut gate: UnixStream) -> ! {
    if let Some(output) = directory_from(&mut gate) {
        let error = execute(plan, &output, signals);
        let number = error.raw_os_error().unwrap_or(libc::EINVAL);
        let _ = gate.write_all(&number.to_ne_bytes());
    }
    // SAFETY: ends this process at once; handlers of the parent's are not to run here.
    unsafe { libc::_exit(127) }
}

/// Waits for the path; `None` when there is nothing to be run any more.
fn directory_from(gate: &mut UnixStream) -> Option<[CString; 2]> {
    let mut path = Vec::new();
    gate.read_to_end(&mut path).ok()?;
    environment::output(path.strip_suffix(b"\0")?)
}

/// Returns only with an error.
fn execute(plan: &Plan, output: &[CString], signals: &Signals) -> io::Error {
    let environment = pointers(plan.environment.iter().chain(output).map(CString::as_c_str));
    let args = pointers(plan.args.iter().map(CString::as_c_str));
    for stream in inherited::closed_streams() {
        // SAFETY: the runtime put `/dev/null` there, and nothing of ours uses it in this process.
        unsafe { libc::close(stream) };
    }
    signals.give_back_all();
    plan.files.give_back();
    let error = exec(&plan.path, &args, &environment);
    if error.raw_os_error() != Some(libc::ENOEXEC) {
        return error;
    }
    // The kernel knows no such format: as `execvp` does, let the shell read it.
    let Ok(shell) = CString::new(SHELL) else { return error };
    let words = [shell.as_c_str(), &plan.path];
    let args = pointers(words.into_iter().chain(plan.args.iter().skip(1).map(CString::as_c_str)));
    exec(&shell, &args, &environment)
}

fn exec(path: &CStr, args: &[*const c_char], environment: &[*const c_char]) -> io::Error {
    // SAFETY: both lists end in a null pointer, and what they point at outlives the call.
    unsafe { libc::execve(path.as_ptr(), args.as_ptr(), environment.as_ptr()) };
    io::Error::last_os_error()
}

/// The strings' addresses, with the null behind them that C expects.
fn pointers<'a>(strings: impl Iterator<Item = &'a CStr>) -> Vec<*const c_char> {
    strings.map(CStr::as_ptr).chain([ptr::null()]).collect()
}
