//! Files that appear whole or not at all.

use std::fs::{self, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::process::geteuid;
use tempfile::NamedTempFile;

use crate::error::{Error, Result};

/// Writes a file beside its place and moves it there when `write` is done. Nothing is left of it
/// when that fails.
pub fn write<T>(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<&mut NamedTempFile>) -> Result<T>,
) -> Result<T> {
    let failed = |error: &io::Error| match directory_of(path) {
        directory if error.kind() == io::ErrorKind::NotFound && !directory.exists() => {
            Error::failed(directory.display(), "there is no such directory")
                .remedy("make it, or name another one")
        }
        _ => Error::file(path, error),
    };
    let target = follow_link(path);
    let mut file = create(&target).map_err(|error| failed(&error))?;
    let mut out = BufWriter::with_capacity(1 << 18, &mut file);
    let result = write(&mut out)?;
    out.flush().map_err(|error| failed(&error))?;
    drop(out);
    file.persist(&target).map_err(|error| failed(&error.error))?;
    Ok(result)
}

/// Through a symbolic link it is the file behind it that is replaced; but a link that somebody else has put into a
/// directory that is not theirs alone leads nowhere: it would be replaced itself.
fn follow_link(path: &Path) -> PathBuf {
    let trusted = match (fs::symlink_metadata(path), fs::metadata(directory_of(path))) {
        (Ok(link), Ok(directory)) => {
            [geteuid().as_raw(), directory.uid()].contains(&link.uid()) || !link.is_symlink()
        }
        _ => true,
    };
    let behind = if trusted { fs::canonicalize(path).ok() } else { None };
    behind.unwrap_or_else(|| path.to_owned())
}

/// The directory of a file that may be given by its name alone.
pub fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn create(target: &Path) -> io::Result<NamedTempFile> {
    if target.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    let directory = directory_of(target);
    // As any file that the user makes; the umask takes from it.
    let rights = Permissions::from_mode(0o666);
    let made = tempfile::Builder::new()
        .prefix(".memscope-")
        .suffix(".part")
        .permissions(rights)
        .tempfile_in(directory);
    // The random name that was tried would only confuse.
    made.map_err(|error| {
        error.raw_os_error().map_or(io::Error::from(error.kind()), io::Error::from_raw_os_error)
    })
}
