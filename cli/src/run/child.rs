//! The program's process: made first, named after, and let go when its recording has a place: the default directory carries the
//! program's process id, and has to exist before the program runs. How the two talk meanwhile: [`super::gate`].

use std::ffi::{CStr, CString, c_char};
use std::io;
use std::path::Path;
use std::ptr;

use super::gate::Gate;
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
    gate: Gate,
}

impl Waiting {
    /// Makes the child.
    pub fn start(plan: &Plan, signals: &Signals) -> io::Result<Self> {
        let gate = Gate::new()?;
        // SAFETY: this process has one thread, so the child may use all of Rust. It never returns from here.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            0 => become_the_program(plan, signals, &gate),
            pid => Ok(Self { pid, gate }),
        }
    }

    /// The id that the program will have.
    pub const fn pid(&self) -> i32 {
        self.pid
    }

    /// Lets the child become the program, which records into this directory.
    pub fn go(self, directory: &Path) -> io::Result<()> {
        let opened = self.gate.open(directory.as_os_str().as_encoded_bytes(), || lives(self.pid));
        opened.inspect_err(|_| reap(self.pid))
    }

    /// Lets the child end without having become anything.
    pub fn cancel(self) {
        let _ = self.gate.open(b"", || lives(self.pid));
        reap(self.pid);
    }
}

/// Whether a child has not ended yet; its end can still be waited for.
fn lives(pid: i32) -> bool {
    let how = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: `info` is ours to be written, and zeros are one that says nothing.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        libc::waitid(libc::P_PID, pid.cast_unsigned(), &raw mut info, how) == 0 && info.si_pid() == 0
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
fn become_the_program(plan: &Plan, signals: &Signals, gate: &Gate) -> ! {
    if let Some(output) = gate.wait_for_path().and_then(|path| environment::output(&path)) {
        gate.fail(&execute(plan, &output, signals));
    }
    // SAFETY: ends this process at once; handlers of the parent's are not to run here.
    unsafe { libc::_exit(127) }
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
