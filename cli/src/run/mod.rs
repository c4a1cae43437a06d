//! `run`: starts the program with the recorder in it, waits, and makes of the recording what was
//! asked for.
//!
//! ```text
//! preflight -> directory -> child -> wait (signals, drain) -> finish: complete, export, say
//! ```

mod child;
mod directory;
mod drain;
mod environment;
mod finish;
mod gate;
mod inherited;
mod limits;
mod proc;
mod signals;
mod spools;
mod waker;
mod witness;

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::time::{ClockId, clock_gettime};

use self::child::{Plan, Waiting};
use self::directory::Directory;
use self::drain::Draining;
use self::limits::OpenFiles;
use self::signals::{Ending, Signals};
use self::spools::Spools;
use self::witness::{Ends, Witness};
use crate::args::RunArgs;
use crate::embed::Library;
use crate::error::{Error, Result, describe};
use crate::exit_codes::ExitCode;
use crate::preflight;

/// A program that has ended, and where its recording lies.
#[derive(Debug)]
struct Ended {
    directory: Directory,
    pid: i32,
    ending: Ending,
    /// `CLOCK_MONOTONIC` in ns when we saw it.
    seen_ns: u64,
    /// The ends of other processes.
    others: Ends,
    /// What shared memory there may be.
    spools: Spools,
}

/// Runs the program of the command line.
pub fn run(args: &RunArgs) -> Result<ExitCode> {
    let Some(command) = args.command.first() else {
        return Err(Error::usage("run", "no program to run was given").remedy("name one"));
    };
    let files = OpenFiles::raise();
    let program = preflight::check(command)?;
    let library = Library::ready()?;
    let recorded = plan(args, &program, &library, files).and_then(|plan| record(args, command, &plan));
    match recorded {
        Ok(ended) => Ok(finish::finish(args, &ended, library)),
        Err(error) => {
            library.discard();
            Err(error)
        }
    }
}

/// From the start of the program to its end.
fn record(args: &RunArgs, command: &OsStr, plan: &Plan) -> Result<Ended> {
    let signals = Signals::take_over().map_err(|error| Error::failed("signals", describe(&error)))?;
    let waiting = match Waiting::start(plan, &signals) {
        Ok(waiting) => waiting,
        Err(error) => {
            let why = format!("no process can be made: {}", describe(&error));
            return Err(
                Error::failed(command.display(), why).remedy("check the limits of processes and memory")
            );
        }
    };
    let pid = waiting.pid();
    let directory = match Directory::for_program(args.output.as_deref(), &args.command, pid) {
        Ok(directory) => directory,
        Err(error) => {
            waiting.cancel();
            return Err(error);
        }
    };
    // Behind the fork: its child may use all of Rust only if there was one thread.
    let witness = Witness::start(directory.path());
    if let Err(error) = waiting.go(directory.path()) {
        directory.abandon();
        return Err(cannot_run(command, &error));
    }
    // From here on there may be threads: nothing is forked any more but what wakes us (`waker`).
    let begin = || if args.no_thread { Draining::start(directory.path()) } else { None };
    let mut draining = begin();
    let ending = signals.wait_for(pid, |stop| {
        // While we are stopped, nobody must wait for us: those who can still be drained afterwards are new, or have
        // not been claimed.
        draining.take().into_iter().for_each(Draining::stop);
        stop();
        draining = begin();
    });
    let ending = ending.map_err(|error| Error::failed(command.display(), describe(&error)))?;
    let seen_ns = monotonic_ns();
    draining.into_iter().for_each(Draining::stop);
    // From here on we may be interrupted: what was recorded stays.
    signals.go_on_alone();
    OpenFiles::make_room();
    let (others, spools) = witness.map(Witness::seen).unwrap_or_default();
    Ok(Ended { directory, pid, ending, seen_ns, others, spools })
}

fn plan(args: &RunArgs, program: &Path, library: &Library, files: OpenFiles) -> Result<Plan> {
    let words: Option<Vec<CString>> = args.command.iter().map(c_string).collect();
    let (Some(words), Some(path)) = (words, c_string(&program.as_os_str().to_owned())) else {
        return Err(Error::usage("run", "an argument holds a NUL character").remedy("leave it out"));
    };
    let environment = environment::for_program(args, library.path());
    Ok(Plan { path, args: words, environment, files })
}

fn c_string(word: &OsString) -> Option<CString> {
    CString::new(word.as_bytes()).ok()
}

/// What `execve` had against the program. Most was found before; what remains is a change in between, or
/// beyond us.
fn cannot_run(command: &OsStr, error: &io::Error) -> Error {
    let why = describe(error);
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR) => {
            Error::not_found(command.display(), format!("{why} (the program, or the loader that it names)"))
                .remedy("check that both exist")
        }
        Some(libc::E2BIG) => Error::cannot_run(command.display(), why)
            .remedy("give it fewer arguments or a smaller environment"),
        _ => Error::cannot_run(command.display(), why).remedy("check that it is a program that you may run"),
    }
}

fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}
