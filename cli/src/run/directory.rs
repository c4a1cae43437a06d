//! The directory of a recording.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result, describe};

/// A directory that is ready to be recorded into.
#[derive(Debug)]
pub struct Directory {
    /// As the user would name it.
    shown: PathBuf,
    absolute: PathBuf,
    /// We made it, and may take it away again while it is empty.
    made: bool,
}

impl Directory {
    /// The default: named after the program and its process, in the working directory.
    pub fn for_program(command: &OsStr, pid: i32) -> Result<Self> {
        let mut name = OsString::from("memscope-");
        name.push(Path::new(command).file_name().unwrap_or(OsStr::new("program")));
        name.push(format!("-{pid}"));
        Self::prepare(Path::new(&name))
    }

    /// Makes the directory if need be, and sees that it can take a recording.
    pub fn prepare(path: &Path) -> Result<Self> {
        let absolute = absolute(path)?;
        if holds_recording(&absolute) {
            return Err(Error::failed(path.display(), "it already holds a recording")
                .remedy("name another directory with -o, or remove it"));
        }
        let made = !absolute.exists();
        // Others have no business in what a program allocates.
        let result = DirBuilder::new().recursive(true).mode(0o700).create(&absolute);
        result.and_then(|()| can_be_written(&absolute)).map_err(|error| unusable(path, &error))?;
        Ok(Self { shown: path.to_owned(), absolute, made })
    }

    /// The absolute path.
    pub fn path(&self) -> &Path {
        &self.absolute
    }

    /// A file in it, as the user would name it.
    pub fn shown(&self, file: &str) -> PathBuf {
        self.shown.join(file)
    }

    /// How the user would name it.
    pub fn name(&self) -> &Path {
        &self.shown
    }

    /// Takes the directory away again, where we made it and it is empty.
    pub fn abandon(self) {
        if self.made {
            let _ = fs::remove_dir(&self.absolute);
        }
    }
}

fn absolute(path: &Path) -> Result<PathBuf> {
    if path.is_absolute() {
        return Ok(path.to_owned());
    }
    match env::current_dir() {
        Ok(here) => Ok(here.join(path)),
        Err(error) => Err(Error::failed("the working directory", describe(&error))
            .remedy("change to a directory that exists, or give an absolute path with -o")),
    }
}

/// Whether traces lie in the directory.
pub fn holds_recording(path: &Path) -> bool {
    let Ok(entries) = fs::read_dir(path) else { return false };
    entries.flatten().any(|entry| Path::new(&entry.file_name()).extension() == Some(OsStr::new("trace")))
}

fn can_be_written(path: &Path) -> io::Result<()> {
    tempfile::Builder::new().prefix(".memscope-").tempfile_in(path).map(drop)
}

fn unusable(path: &Path, error: &io::Error) -> Error {
    let why = match error.kind() {
        io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
            "it is, or lies below, something that is no directory".to_owned()
        }
        // The random name that was tried would only confuse.
        _ => describe(error).split(" at path ").next().unwrap_or_default().to_owned(),
    };
    let remedy = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "free some space there, or name another directory with -o"
        }
        _ => "name a directory that you may write to with -o",
    };
    Error::failed(path.display(), why).remedy(remedy)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use super::Directory;
    use crate::exit_codes::ExitCode;

    #[test]
    fn a_new_directory_is_private_and_can_be_abandoned() {
        let root = tempfile::tempdir().expect("a directory");
        let path = root.path().join("a/b");
        let directory = Directory::prepare(&path).expect("made");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o700);
        assert_eq!(directory.path(), path);
        assert_eq!(fs::read_dir(&path).expect("listed").count(), 0);
        directory.abandon();
        assert!(!path.exists());
    }

    #[test]
    fn a_directory_that_was_there_stays() {
        let root = tempfile::tempdir().expect("a directory");
        Directory::prepare(root.path()).expect("usable").abandon();
        assert!(root.path().exists());
    }

    #[test]
    fn a_recording_is_not_overwritten() {
        let root = tempfile::tempdir().expect("a directory");
        fs::write(root.path().join("12-0.trace"), "").expect("written");
        let error = Directory::prepare(root.path()).expect_err("refused");
        assert_eq!(error.exit_code(), ExitCode::Failed);
        assert!(error.to_string().contains("already holds a recording"), "{error}");
    }

    #[test]
    fn what_is_no_directory_is_refused() {
        let root = tempfile::tempdir().expect("a directory");
        let file = root.path().join("file");
        fs::write(&file, "").expect("written");
        for path in [file.clone(), file.join("below")] {
            let error = Directory::prepare(&path).expect_err("refused");
            assert_eq!(error.exit_code(), ExitCode::Failed);
            assert_eq!(error.to_string().lines().count(), 1, "{error}");
        }
        assert!(Directory::prepare(Path::new("/proc/memscope")).is_err());
    }

    #[test]
    fn the_default_name_has_the_program_and_its_id() {
        let name = |command: &str| {
            let directory = Directory::for_program(OsStr::new(command), 42).expect("made");
            let name = directory.name().to_owned();
            directory.abandon();
            name
        };
        assert_eq!(name("/usr/bin/ls"), Path::new("memscope-ls-42"));
        assert_eq!(name("./a b"), Path::new("memscope-a b-42"));
    }
}
