//! The directory of a recording.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process;

use rustix::process::geteuid;

use crate::error::{Error, Result, describe};
use crate::handoff;

/// Marks the directory while we look after it: the library leaves the end of its traces to us, and finds in it the command.
const LAUNCHER: &str = ".run";
/// The library's own mark: which process was the first.
const FIRST: &str = ".first";

/// What is left of a recording whose traces were moved away or deleted.
const REPORTS: [&str; 2] = ["snapshot.json", "report.html"];

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
    /// The directory that the user named, or the default: named after the program and its process, in the
    /// working directory. As in `MEMSCOPE_OUTPUT`, `%e` stands for the program and `%p` for the process.
    pub fn for_program(wanted: Option<&Path>, command: &[OsString], pid: i32) -> Result<Self> {
        let pattern = wanted.unwrap_or(Path::new("memscope-%e-%p"));
        let program = command.first().and_then(|word| Path::new(word).file_name());
        Self::prepare(&expand(pattern, program.unwrap_or(OsStr::new("program")), pid), command)
    }

    /// Makes the directory if need be, and sees that it can take a recording.
    fn prepare(path: &Path, command: &[OsString]) -> Result<Self> {
        let absolute = absolute(path)?;
        if expand(&absolute, OsStr::new(""), 0) != absolute {
            // The library would put its own names in.
            return Err(Error::failed(path.display(), "its path holds %p or %e, which stand for names")
                .remedy("name another directory with -o"));
        }
        // Links are somebody else's: what is written later does not follow them.
        let is_file =
            |name: &&str| fs::symlink_metadata(absolute.join(name)).is_ok_and(|meta| meta.is_file());
        let reported = || REPORTS.iter().any(is_file);
        if holds_recording(&absolute) || reported() {
            return Err(Error::failed(path.display(), "it already holds a recording")
                .remedy("name another directory with -o, or remove it"));
        }
        let made = fs::symlink_metadata(&absolute).is_err();
        // Others have no business in what a program allocates.
        let result = DirBuilder::new().recursive(true).mode(0o700).create(&absolute);
        // The umask may have taken away even our own rights.
        let result =
            result.and_then(|()| if made { fs::set_permissions(&absolute, private()) } else { Ok(()) });
        result.map_err(|error| unusable(path, &error))?;
        if !is_ours(&absolute) {
            return Err(Error::failed(path.display(), "it belongs to somebody else, or is a symbolic link")
                .remedy("name another directory with -o"));
        }
        mark(&absolute.join(LAUNCHER), command).map_err(|error| unusable(path, &error))?;
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

    /// We look after it no more. `still_used` by processes that go on, which may ask who was first.
    pub fn release(&self, still_used: bool) {
        let _ = fs::remove_file(self.absolute.join(LAUNCHER));
        if !still_used {
            let _ = fs::remove_file(self.absolute.join(FIRST));
            handoff::remove(&self.absolute);
        }
    }

    /// Takes the directory away again, where we made it and it is empty.
    pub fn abandon(self) {
        self.release(false);
        if self.made {
            let _ = fs::remove_dir(&self.absolute);
        }
    }
}

fn private() -> Permissions {
    Permissions::from_mode(0o700)
}

/// Whether nobody else (but root) may rearrange the directory, and no link can lead us to another one.
fn is_ours(path: &Path) -> bool {
    fs::symlink_metadata(path)
        .is_ok_and(|there| there.is_dir() && [0, geteuid().as_raw()].contains(&there.uid()))
}

/// Makes our mark anew, whatever stands in its place: our id, and for the library the words of the command.
fn mark(path: &Path, command: &[OsString]) -> io::Result<()> {
    let _ = fs::remove_file(path);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let mut text = process::id().to_string().into_bytes();
    for word in command {
        text.push(0);
        text.extend(word.as_bytes());
    }
    text.push(0);
    file.write_all(&text)
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

/// Puts the program's name in for `%e` and the process's id for `%p`.
fn expand(pattern: &Path, program: &OsStr, pid: i32) -> PathBuf {
    let mut path = Vec::new();
    let mut rest = pattern.as_os_str().as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match (byte, after.first()) {
            (b'%', Some(b'p')) => path.extend(pid.to_string().into_bytes()),
            (b'%', Some(b'e')) => path.extend(program.as_bytes()),
            _ => {
                path.push(*byte);
                continue;
            }
        }
        rest = &after[1..];
    }
    PathBuf::from(OsString::from_vec(path))
}

fn unusable(path: &Path, error: &io::Error) -> Error {
    let why = match error.kind() {
        io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
            "it is, or lies below, something that is no directory".to_owned()
        }
        _ => describe(error),
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
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::Path;

    use super::{Directory, expand};
    use crate::exit_codes::ExitCode;

    #[test]
    fn a_new_directory_is_private_and_can_be_abandoned() {
        let root = tempfile::tempdir().expect("a directory");
        let path = root.path().join("a/b");
        let directory = Directory::prepare(&path, &[]).expect("made");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o700);
        assert_eq!(directory.path(), path);
        assert_eq!(fs::read_dir(&path).expect("listed").count(), 1, "our mark");
        directory.abandon();
        assert!(!path.exists());
    }

    #[test]
    fn a_directory_that_was_there_stays() {
        let root = tempfile::tempdir().expect("a directory");
        Directory::prepare(root.path(), &[]).expect("usable").abandon();
        assert!(root.path().exists());
    }

    #[test]
    fn a_recording_is_not_overwritten() {
        let root = tempfile::tempdir().expect("a directory");
        fs::write(root.path().join("12-0.trace"), "").expect("written");
        let error = Directory::prepare(root.path(), &[]).expect_err("refused");
        assert_eq!(error.exit_code(), ExitCode::Failed);
        assert!(error.to_string().contains("already holds a recording"), "{error}");
    }

    #[test]
    fn what_is_no_directory_is_refused() {
        let root = tempfile::tempdir().expect("a directory");
        let file = root.path().join("file");
        fs::write(&file, "").expect("written");
        for path in [file.clone(), file.join("below")] {
            let error = Directory::prepare(&path, &[]).expect_err("refused");
            assert_eq!(error.exit_code(), ExitCode::Failed);
            assert_eq!(error.to_string().lines().count(), 1, "{error}");
        }
        assert!(Directory::prepare(Path::new("/proc/memscope"), &[]).is_err());
    }

    #[test]
    fn links_are_not_followed() {
        let root = tempfile::tempdir().expect("a directory");
        fs::create_dir(root.path().join("there")).expect("made");
        symlink(root.path().join("there"), root.path().join("link")).expect("linked");
        assert!(Directory::prepare(&root.path().join("link"), &[]).is_err());
        let (victim, mark) = (root.path().join("victim"), root.path().join("there/.run"));
        fs::write(&victim, "as it was").expect("written");
        symlink(&victim, &mark).expect("linked");
        Directory::prepare(&root.path().join("there"), &[]).expect("usable");
        assert_eq!(fs::read_to_string(&victim).expect("read"), "as it was");
        assert!(fs::symlink_metadata(&mark).expect("there").is_file());
    }

    #[test]
    fn names_have_the_program_and_its_id() {
        let name = |pattern: &str| expand(Path::new(pattern), OsStr::new("a b"), 42);
        assert_eq!(name("memscope-%e-%p"), Path::new("memscope-a b-42"));
        assert_eq!(name("100%/%%p%p%x%"), Path::new("100%/%4242%x%"));
        let root = tempfile::tempdir().expect("a directory");
        let pattern = root.path().join("r%p-%e");
        let made = Directory::for_program(Some(&pattern), &["/bin/ls".into()], 42).expect("made");
        assert_eq!(made.path(), root.path().join("r42-ls"));
        let odd = Directory::for_program(Some(&pattern), &["/bin/%p".into()], 42).expect_err("refused");
        assert!(odd.to_string().contains("stand for names"), "{odd}");
    }

    #[test]
    fn the_mark_is_there_while_we_are() {
        let root = tempfile::tempdir().expect("a directory");
        let directory = Directory::prepare(root.path(), &[]).expect("usable");
        fs::write(root.path().join(".first"), "1").expect("written");
        directory.release(true);
        assert!(!root.path().join(".run").exists() && root.path().join(".first").exists());
        directory.release(false);
        assert!(!root.path().join(".first").exists());
    }
}
