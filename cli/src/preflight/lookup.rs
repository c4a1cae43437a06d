//! Finding a program, by the rules of `execvp`.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::io::Errno;

use crate::error::{Error, Result, describe};

/// Where programs are looked for when `PATH` is not set, as glibc does.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// Why a file cannot be run.
#[derive(Debug)]
pub enum Problem {
    /// There is none.
    Missing,
    /// It is there; why it cannot be run.
    Refused(String),
}

impl Problem {
    fn of_program(self, command: &OsStr) -> Error {
        match self {
            Self::Missing if command.as_bytes().contains(&b'/') => {
                Error::not_found(command.display(), "no such program").remedy("check the path")
            }
            Self::Missing => Error::not_found(command.display(), "no such program in PATH")
                .remedy("check its name, or give its path"),
            Self::Refused(why) => Error::cannot_run(command.display(), why)
                .remedy("give the path of a program that you may run"),
        }
    }

    /// The same, of the interpreter that a script names.
    pub fn of_interpreter(self, script: &OsStr, interpreter: &Path) -> Error {
        let name = interpreter.display();
        match self {
            Self::Missing if interpreter.as_os_str().as_bytes().ends_with(b"\r") => {
                Error::not_found(script.display(), "its first line ends in a carriage return, as on Windows")
                    .remedy("convert its line ends")
            }
            Self::Missing => {
                Error::not_found(script.display(), format!("its interpreter {name} does not exist"))
                    .remedy("correct its first line")
            }
            Self::Refused(why) => {
                Error::cannot_run(script.display(), format!("its interpreter {name}: {why}"))
                    .remedy("correct its first line")
            }
        }
    }
}

/// The path under which `execvp` would find the program.
pub fn find(command: &OsStr) -> Result<PathBuf> {
    let path = env::var_os("PATH");
    find_in(command, path.as_deref()).map_err(|problem| problem.of_program(command))
}

fn find_in(command: &OsStr, path: Option<&OsStr>) -> std::result::Result<PathBuf, Problem> {
    if command.is_empty() {
        return Err(Problem::Missing);
    }
    if command.as_bytes().contains(&b'/') {
        usable(Path::new(command))?;
        return Ok(PathBuf::from(command));
    }
    let mut refused = None;
    for directory in path.unwrap_or(OsStr::new(DEFAULT_PATH)).as_bytes().split(|b| *b == b':') {
        let candidate = in_directory(directory, command);
        match usable(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(Problem::Missing) => {}
            Err(Problem::Refused(why)) => {
                refused.get_or_insert_with(|| format!("{}: {why}", candidate.display()));
            }
        }
    }
    Err(refused.map_or(Problem::Missing, Problem::Refused))
}

/// An empty entry of `PATH` is the working directory.
fn in_directory(directory: &[u8], command: &OsStr) -> PathBuf {
    let directory = if directory.is_empty() { b"." } else { directory };
    let mut path = OsString::from(OsStr::from_bytes(directory));
    path.push("/");
    path.push(command);
    PathBuf::from(path)
}

/// Whether the file is one that `execve` would take.
pub fn usable(path: &Path) -> std::result::Result<(), Problem> {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Err(Problem::Missing);
        }
        Err(error) => return Err(Problem::Refused(describe(&error))),
    };
    if metadata.is_dir() {
        return Err(Problem::Refused("it is a directory".to_owned()));
    }
    if !metadata.is_file() {
        return Err(Problem::Refused("it is not a regular file".to_owned()));
    }
    match accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS) {
        // Kernels before 5.8 cannot check for the effective user: `execve` will.
        Ok(()) | Err(Errno::NOSYS | Errno::INVAL) => Ok(()),
        Err(_) => {
            Err(Problem::Refused("it is not executable, or its file system is mounted noexec".to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::{OsStr, OsString};
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use super::{Problem, find_in};

    fn file(path: &Path, mode: u32) {
        fs::write(path, "#!/bin/sh\n").expect("written");
        fs::set_permissions(path, Permissions::from_mode(mode)).expect("set");
    }

    #[test]
    fn the_first_usable_file_of_the_path_wins() {
        let root = tempfile::tempdir().expect("a directory");
        let [a, b, c] = ["a", "b", "c"].map(|d| root.path().join(d));
        for directory in [&a, &b, &c] {
            fs::create_dir(directory).expect("made");
        }
        file(&a.join("tool"), 0o644);
        file(&b.join("tool"), 0o755);
        file(&c.join("tool"), 0o755);
        let path = OsString::from(format!("{}:{}:{}", a.display(), b.display(), c.display()));
        assert_eq!(find_in(OsStr::new("tool"), Some(&path)).expect("found"), b.join("tool"));
        assert!(matches!(find_in(OsStr::new("tool"), Some(a.as_os_str())), Err(Problem::Refused(_))));
        assert!(matches!(find_in(OsStr::new("nothing"), Some(&path)), Err(Problem::Missing)));
    }

    #[test]
    fn a_name_with_a_slash_is_a_path() {
        assert!(find_in(OsStr::new("/bin/sh"), Some(OsStr::new(""))).is_ok());
        assert!(matches!(find_in(OsStr::new("./no/such"), None), Err(Problem::Missing)));
        assert!(matches!(find_in(OsStr::new("/"), None), Err(Problem::Refused(_))));
        assert!(matches!(find_in(OsStr::new("/dev/null"), None), Err(Problem::Refused(_))));
        assert!(matches!(find_in(OsStr::new(""), None), Err(Problem::Missing)));
    }

    #[test]
    fn without_a_path_the_usual_places_are_searched() {
        assert!(find_in(OsStr::new("sh"), None).is_ok());
    }
}
