//! What can be said of a program before it is started: that it exists, and that the recorder can be
//! loaded into it.
//!
//! The kernel and the loader would say most of this themselves, but late, or not at all: a static
//! program simply runs without us.

mod image;
mod lookup;
mod script;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// How many interpreters the kernel follows from script to script.
const MAX_SCRIPTS: usize = 5;
/// What runs an executable file that the kernel knows no format of.
pub const SHELL: &str = "/bin/sh";

/// Finds the program as `execvp` would and makes sure that it can be recorded.
pub fn check(command: &OsStr) -> Result<PathBuf> {
    let path = lookup::find(command)?;
    can_be_recorded(&path, command)?;
    Ok(path)
}

/// Follows `#!` lines to the image that the kernel will load, and looks at that.
fn can_be_recorded(path: &Path, command: &OsStr) -> Result<()> {
    let mut file = path.to_owned();
    for _ in 0..=MAX_SCRIPTS {
        let next = match script::interpreter(&file) {
            script::Kind::Image => return image::check(&file, path, command),
            script::Kind::Shell => PathBuf::from(SHELL),
            script::Kind::Interpreter(interpreter) => interpreter,
            // It may be run but not read: the loader needs no more.
            script::Kind::Unreadable => return Ok(()),
        };
        lookup::usable(&next).map_err(|problem| problem.of_interpreter(command, &next))?;
        file = next;
    }
    Err(Error::cannot_run(
        command.display(),
        "its interpreters are scripts, one after the other, without end",
    )
    .remedy("let the first line name a program"))
}

#[cfg(test)]
mod tests;
