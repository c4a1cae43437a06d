//! The library that is carried inside: a copy of it as a file, for the loader to find.
//!
//! The copy lies in a cache of the user's, under a name that its content gives, so that it is written
//! once, and processes that outlive `memscope-cli` can hand it on to their children. Where there is no
//! usable cache it goes to a directory of the user's in `/tmp`; where somebody has put another there, to one with a random name.
//!
//! A copy is used only where nobody else could have put it or can change it, and where
//! `LD_PRELOAD` can name it: the loader splits at spaces and colons and expands `$`, and cannot map
//! a file of a file system that is mounted `noexec`.

use std::env;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, Metadata, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{StatVfsMountFlags, statvfs};
use rustix::process::geteuid;

use crate::error::{Error, Result};

/// What `build.rs` built.
static LIBRARY: &[u8] = include_bytes!(env!("MEMSCOPE_EMBEDDED_LIBRARY"));
/// A name for its content.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "-", env!("MEMSCOPE_EMBEDDED_HASH"));
/// The library's file name.
pub const FILE_NAME: &str = "libmemscope.so";

/// A copy that is ready to be preloaded.
#[derive(Debug)]
pub struct Library {
    path: PathBuf,
    /// The directory with a random name that holds it, where no cache was usable.
    temporary: Option<PathBuf>,
}

impl Library {
    /// Finds the copy, or makes it.
    pub fn ready() -> Result<Self> {
        let mut refused = Vec::new();
        for cache in caches() {
            match cached_copy(&cache) {
                Ok(path) => return Ok(Self { path, temporary: None }),
                Err(error) => refused.push(format!("{}: {error}", cache.display())),
            }
        }
        for directory in temporary_directories() {
            match own_copy(&directory) {
                Ok(path) => return Ok(Self { path, temporary: None }),
                Err(error) => refused.push(format!("{}: {error}", directory.display())),
            }
        }
        for directory in temporary_directories() {
            match private_copy(&directory) {
                Ok((path, made)) => return Ok(Self { path, temporary: Some(made) }),
                Err(error) => refused.push(format!("{}: {error}", directory.display())),
            }
        }
        let why = format!("no directory can hold a copy of it ({})", refused.join(", "));
        Err(Error::failed(FILE_NAME, why)
            .remedy("set XDG_CACHE_HOME to a directory of yours, without spaces and not mounted noexec"))
    }

    /// Where it lies: absolute, with no character that `LD_PRELOAD` treats specially.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes a copy that only this run used. A cached one stays.
    pub fn discard(self) {
        if let Some(directory) = self.temporary {
            // Nothing to be done where it fails: the name is random, and the file harmless.
            let _ = fs::remove_file(&self.path);
            let _ = fs::remove_dir(directory);
        }
    }
}

/// Directories for a lasting copy, best first.
fn caches() -> Vec<PathBuf> {
    let absolute = |name: &str| env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let mut caches = Vec::new();
    caches.extend(absolute("XDG_CACHE_HOME"));
    if geteuid().is_root() {
        // Root's own home is closed to the users whose rights its programs may take on.
        caches.push(PathBuf::from("/var/cache"));
    }
    caches.extend(absolute("HOME").map(|home| home.join(".cache")));
    caches
}

/// Directories that anyone may write to.
fn temporary_directories() -> Vec<PathBuf> {
    let own = env::var_os("TMPDIR").map(PathBuf::from).filter(|p| p.is_absolute());
    own.into_iter().chain(["/tmp", "/var/tmp", "/dev/shm"].map(PathBuf::from)).collect()
}

/// The copy in a cache; made or renewed where it is missing, damaged or not ours alone.
fn cached_copy(cache: &Path) -> io::Result<PathBuf> {
    suits_the_loader(cache)?;
    DirBuilder::new().recursive(true).mode(0o700).create(cache)?;
    let ours = cache.join("memscope");
    let directory = ours.join(VERSION);
    for made in [&ours, &directory] {
        make_directory(made)?;
    }
    can_be_mapped(&directory)?;
    let path = directory.join(FILE_NAME);
    if !is_the_library(&path)? {
        write_copy(&directory, &path)?;
    }
    Ok(path)
}

/// The copy in a lasting directory of this user's, beside those of others: who has no cache gets the same path each time.
fn own_copy(base: &Path) -> io::Result<PathBuf> {
    suits_the_loader(base)?;
    can_be_mapped(base)?;
    let there = fs::metadata(base)?;
    // Where others may write, only the sticky bit keeps them from moving it away and putting theirs there.
    if !ours_alone(&there) && there.mode() & 0o1000 == 0 {
        return Err(io::Error::other("others may rename what lies in it"));
    }
    let ours = base.join(format!("memscope-{}", geteuid().as_raw()));
    let directory = ours.join(VERSION);
    for made in [&ours, &directory] {
        make_directory(made)?;
    }
    let path = directory.join(FILE_NAME);
    if !is_the_library(&path)? {
        write_copy(&directory, &path)?;
    }
    Ok(path)
}

/// A copy in a new directory with a random name, which anyone may read; and that directory.
fn private_copy(base: &Path) -> io::Result<(PathBuf, PathBuf)> {
    suits_the_loader(base)?;
    can_be_mapped(base)?;
    let made = tempfile::Builder::new().prefix("memscope-").rand_bytes(12).tempdir_in(base)?;
    fs::set_permissions(made.path(), Permissions::from_mode(0o755))?;
    let path = made.path().join(FILE_NAME);
    write_copy(made.path(), &path)?;
    Ok((path, made.keep()))
}

/// Whether `LD_PRELOAD` can name a file in this directory.
fn suits_the_loader(directory: &Path) -> io::Result<()> {
    if is_preloadable_path(directory.as_os_str()) {
        return Ok(());
    }
    Err(io::Error::other("its path has a space, a colon or a dollar sign"))
}

/// Whether the loader takes this path as one entry of `LD_PRELOAD`, as it stands.
pub fn is_preloadable_path(path: &OsStr) -> bool {
    !path.as_bytes().iter().any(|b| matches!(b, b' ' | b':' | b'$' | b'\n' | b'\t' | 0))
}

fn can_be_mapped(directory: &Path) -> io::Result<()> {
    if statvfs(directory)?.f_flag.contains(StatVfsMountFlags::NOEXEC) {
        return Err(io::Error::other("its file system is mounted noexec"));
    }
    Ok(())
}

/// Makes a directory that all may read and only we may write; one that is there must be such.
fn make_directory(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o755).create(path) {
        // The umask may have taken away what others need to read the copy.
        Ok(()) => fs::set_permissions(path, Permissions::from_mode(0o755)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let there = fs::symlink_metadata(path)?;
            if there.is_dir() && ours_alone(&there) {
                return Ok(());
            }
            Err(io::Error::other("memscope's directory in it belongs to somebody else"))
        }
        Err(error) => Err(error),
    }
}

/// Whether nobody but us (and root) may change this file or directory.
fn ours_alone(metadata: &Metadata) -> bool {
    metadata.uid() == geteuid().as_raw() && metadata.mode() & 0o022 == 0
}

/// Whether the file is a copy of the library, byte by byte.
fn is_the_library(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(there) if there.is_file() && ours_alone(&there) && there.len() == LIBRARY.len() as u64 => {}
        Ok(_) => return Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    }
    let mut content = Vec::with_capacity(LIBRARY.len());
    File::open(path)?.take(LIBRARY.len() as u64 + 1).read_to_end(&mut content)?;
    Ok(content == LIBRARY)
}

/// Writes the copy beside its place and moves it there, so that no program maps half of it.
fn write_copy(directory: &Path, path: &Path) -> io::Result<()> {
    let mut copy = tempfile::Builder::new().prefix(".new-").tempfile_in(directory)?;
    copy.write_all(LIBRARY)?;
    copy.as_file().set_permissions(Permissions::from_mode(0o755))?;
    copy.persist(path).map_err(|e| e.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::Path;

    use super::{LIBRARY, cached_copy, is_preloadable_path, own_copy, private_copy};

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).expect("there").permissions().mode() & 0o777
    }

    #[test]
    fn the_library_is_an_elf_file() {
        assert!(LIBRARY.starts_with(b"\x7fELF"));
    }

    #[test]
    fn a_cached_copy_is_whole_readable_and_lasts() {
        let cache = tempfile::tempdir().expect("a directory");
        let path = cached_copy(cache.path()).expect("a copy");
        assert_eq!(fs::read(&path).expect("its content"), LIBRARY);
        assert_eq!((mode(&path), mode(path.parent().expect("a parent"))), (0o755, 0o755));
        let before = fs::metadata(&path).expect("there").modified().expect("a time");
        assert_eq!(cached_copy(cache.path()).expect("the same"), path);
        assert_eq!(fs::metadata(&path).expect("there").modified().expect("a time"), before);
    }

    #[test]
    fn a_damaged_or_replaced_copy_is_renewed() {
        let cache = tempfile::tempdir().expect("a directory");
        let path = cached_copy(cache.path()).expect("a copy");
        let mut damaged = LIBRARY.to_vec();
        damaged[100] ^= 1;
        fs::write(&path, damaged).expect("written");
        assert_eq!(fs::read(cached_copy(cache.path()).expect("renewed")).expect("content"), LIBRARY);

        let elsewhere = cache.path().join("elsewhere");
        fs::write(&elsewhere, LIBRARY).expect("written");
        fs::remove_file(&path).expect("removed");
        symlink(&elsewhere, &path).expect("linked");
        let renewed = cached_copy(cache.path()).expect("renewed");
        assert!(fs::symlink_metadata(renewed).expect("there").is_file());
    }

    #[test]
    fn a_directory_that_others_may_write_is_refused() {
        let cache = tempfile::tempdir().expect("a directory");
        let open = cache.path().join("memscope");
        fs::create_dir(&open).expect("made");
        fs::set_permissions(&open, Permissions::from_mode(0o777)).expect("opened");
        assert!(cached_copy(cache.path()).is_err());

        let cache = tempfile::tempdir().expect("a directory");
        symlink(&open, cache.path().join("memscope")).expect("linked");
        assert!(cached_copy(cache.path()).is_err());
    }

    #[test]
    fn paths_that_the_loader_would_split_are_refused() {
        let cache = tempfile::tempdir().expect("a directory");
        for name in ["with space", "with:colon", "with$dollar"] {
            let odd = cache.path().join(name);
            assert!(!is_preloadable_path(odd.as_os_str()));
            assert!(cached_copy(&odd).is_err());
            assert!(!odd.exists());
        }
    }

    #[test]
    fn without_a_cache_the_same_path_is_used_again() {
        let base = tempfile::tempdir().expect("a directory");
        let path = own_copy(base.path()).expect("a copy");
        assert_eq!(own_copy(base.path()).expect("the same"), path);
        assert_eq!((mode(&path), mode(path.parent().expect("a parent"))), (0o755, 0o755));
        assert_eq!(fs::read_dir(base.path()).expect("listed").count(), 1);
        // What somebody else may change, or has put there, is not used.
        let ours = fs::read_dir(base.path()).expect("listed").flatten().next().expect("one").path();
        fs::set_permissions(&ours, Permissions::from_mode(0o777)).expect("opened");
        assert!(own_copy(base.path()).is_err());
        fs::set_permissions(base.path(), Permissions::from_mode(0o777)).expect("opened");
        fs::remove_dir_all(&ours).expect("removed");
        assert!(own_copy(base.path()).is_err(), "others may rename it");
        fs::set_permissions(base.path(), Permissions::from_mode(0o1777)).expect("sticky");
        assert!(own_copy(base.path()).is_ok());
    }

    #[test]
    fn a_private_copy_can_be_read_by_all_and_removed() {
        let base = tempfile::tempdir().expect("a directory");
        let (path, made) = private_copy(base.path()).expect("a copy");
        assert_eq!(mode(&made), 0o755);
        assert_eq!(fs::read(&path).expect("its content"), LIBRARY);
        super::Library { path, temporary: Some(made.clone()) }.discard();
        assert!(!made.exists());
    }
}
