//! The path by which the library finds its settings in a child whose environment holds none.
//!
//! ```text
//! RECORDING/.preload/             or, where LD_PRELOAD can't name that,
//!   libmemscope.so -> the library     RECORDING/.preload -> /tmp/memscope-RANDOM/
//!   settings
//! ```
//!
//! The loader hands us the path as it was given, so a library that was loaded as `DIR/libmemscope.so` looks for
//! `DIR/settings`: strings as in an environment, each with a NUL behind it. In the recording itself, where the folder is made when
//! the first program is started (`children/folder.rs`), it is a link, whose text holds them with line feeds in between, and the
//! directory goes without saying.

use super::directory::{self, Directory};
use super::settings::Settings;
use crate::children::Folder;
use crate::symbols;
use crate::sys::file::{self, File};
use crate::sys::{Errno, process, syscall};
use core::sync::atomic::AtomicBool;
use std::ffi::CString;

const FOLDER: &str = ".preload";
const IN_RECORDING: &[u8] = b"/.preload";
const LIBRARY: &[u8] = b"/libmemscope.so";
const SETTINGS: &[u8] = b"/settings";
/// More is no file of ours.
const MOST: usize = 16 << 10;

/// Path of this library, as it was loaded, made absolute.
pub fn own_path() -> Option<Vec<u8>> {
    let path = symbols::own()?.path().to_bytes();
    directory::absolute(path).ok()
}

/// The settings that the library's path leads to.
pub fn settings(library: &[u8]) -> Option<Vec<u8>> {
    let folder = library.strip_suffix(LIBRARY)?;
    let path = joined(folder, SETTINGS)?;
    let mut text = [0; 256];
    let linked = file::read_link(&path, &mut text);
    if let (Ok(n @ ..256), Some(directory)) = (linked, folder.strip_suffix(IN_RECORDING)) {
        let mut settings = Settings::directory_for_children(directory);
        settings.extend(text[..n].iter().map(|&byte| if byte == b'\n' { 0 } else { byte }));
        return Some(settings);
    }
    let mut text = vec![0; MOST];
    let n = process::read_file(&path, &mut text).ok()?;
    text.truncate(n);
    Some(text)
}

/// The path that leads to this recording's settings; with the folder that it leads into, where that is made when it is needed.
pub fn leading(
    directory: &Directory,
    settings: &Settings,
    library: &[u8],
    first: bool,
) -> Option<(CString, Option<Folder>)> {
    let folder = directory.file(FOLDER);
    if suits_the_loader(folder.as_bytes()) {
        let link = |name, target: &[u8]| Some((joined(folder.as_bytes(), name)?, CString::new(target).ok()?));
        let text = settings.switches_for_children(b'\n');
        let (settings, library) = (link(SETTINGS, &text)?, link(LIBRARY, library)?);
        let leading = library.0.clone();
        return Some((
            leading,
            Some(Folder { path: folder, settings, library, made: AtomicBool::new(false) }),
        ));
    }
    let known = existing(&folder);
    let place = if known.is_some() || !first { known } else { make(directory, &folder, settings, library) };
    Some((joined(&place?, LIBRARY)?, None))
}

/// The folder that another process of the recording has made. Only one that nobody else can have put there: what lies
/// in it is loaded into programs.
fn existing(folder: &CString) -> Option<Vec<u8>> {
    let (_, user) = process::users();
    let status = file::status_of(folder).ok()?;
    let place = if status.mode & libc::S_IFMT == libc::S_IFLNK && status.uid == user {
        let mut target = [0; 4096];
        let n = file::read_link(folder, &mut target).ok()?;
        target[..n].to_vec()
    } else {
        folder.as_bytes().to_vec()
    };
    let status = file::status_of(&CString::new(place.clone()).ok()?).ok()?;
    let whole = file::accessible(&joined(&place, LIBRARY)?, libc::R_OK);
    (status.is_private_directory(user) && suits_the_loader(&place) && whole).then_some(place)
}

fn make(directory: &Directory, folder: &CString, settings: &Settings, library: &[u8]) -> Option<Vec<u8>> {
    [b"/tmp".as_slice(), b"/var/tmp", b"/dev/shm"].into_iter().find_map(|base| {
        let place = CString::new([base, b"/memscope-", &random_name()?].concat()).ok()?;
        fill(&place, directory, settings, library).ok()?;
        // Without the link nobody would find it or take it away.
        if file::make_link(&place, folder).is_err() {
            empty(&place);
            return None;
        }
        Some(place.into_bytes())
    })
}

/// Makes the folder, which must not exist. The link comes last: it says that the rest is there.
fn fill(folder: &CString, directory: &Directory, settings: &Settings, library: &[u8]) -> Result<(), Errno> {
    let path = |name| joined(folder.as_bytes(), name).ok_or(Errno(libc::ENAMETOOLONG));
    file::make_directory(folder, 0o700)?;
    let filled = (|| {
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL;
        File::open(&path(SETTINGS)?, flags, 0o600)?.write_at(&settings.for_children(directory.path()), 0)?;
        let library = CString::new(library).map_err(|_| Errno(libc::EINVAL))?;
        file::make_link(&library, &path(LIBRARY)?)
    })();
    filled.inspect_err(|_| empty(folder))
}

fn empty(folder: &CString) {
    for name in [SETTINGS, LIBRARY] {
        joined(folder.as_bytes(), name).into_iter().for_each(|path| {
            let _ = file::remove(&path);
        });
    }
    let _ = file::remove_directory(folder);
}

/// A name that nobody can guess.
fn random_name() -> Option<Vec<u8>> {
    let mut random = [0_u8; 12];
    let args = [random.as_mut_ptr() as usize, random.len(), 0, 0, 0, 0];
    // SAFETY: `random` is writable for its length.
    unsafe { syscall(libc::SYS_getrandom, args) }.ok()?;
    Some(random.iter().flat_map(|byte| format!("{byte:02x}").into_bytes()).collect())
}

fn joined(folder: &[u8], name: &[u8]) -> Option<CString> {
    CString::new([folder, name].concat()).ok()
}

/// Whether the loader takes this path as one entry of `LD_PRELOAD`, as it stands.
fn suits_the_loader(path: &[u8]) -> bool {
    !path.iter().any(|byte| matches!(byte, b' ' | b':' | b'$' | b'\n' | b'\t'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::PermissionsExt;

    fn recording(name: &str) -> (std::path::PathBuf, Directory) {
        let base = std::env::temp_dir().join(format!("memscope-handoff-{}", std::process::id()));
        let path = base.join(name);
        let directory = Directory::make(Some(path.as_os_str().as_bytes())).expect("a directory");
        (path, directory)
    }

    #[test]
    fn the_path_leads_to_the_settings() {
        for (name, fallback) in [("plain", false), ("with space", true)] {
            let (path, directory) = recording(name);
            let given = Settings { thread: false, ..Settings::default() };
            let leading = |library, first| leading(&directory, &given, library, first);
            let is_made = |folder: &Option<Folder>| folder.as_ref().is_none_or(Folder::is_made);
            if fallback {
                assert!(leading(b"/etc/passwd", false).is_none());
            }
            let (made, folder) = leading(b"/etc/passwd", true).expect("a path");
            assert_eq!(folder.is_none(), fallback);
            assert_eq!(!made.as_bytes().starts_with(directory.path()), fallback);
            assert_eq!(std::fs::exists(path.join(".preload")).ok(), Some(fallback));
            assert!(is_made(&folder));
            let (again, folder) = leading(b"/etc/passwd", false).expect("a path");
            assert!(again == made && is_made(&folder));
            let text = settings(made.as_bytes()).expect("the settings");
            let read = Settings::read(text.split(|&byte| byte == 0));
            assert_eq!(read.output.as_deref(), Some(directory.path()));
            assert_eq!(read.joins.as_deref(), Some(directory.path()));
            assert!(!read.thread && read.follow && !read.quiet);
            // Somebody else could have changed it.
            let folder = std::path::Path::new(std::ffi::OsStr::from_bytes(made.as_bytes()));
            let folder = folder.parent().expect("a folder");
            std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o777)).expect("permissions");
            assert!(leading(b"/etc/passwd", false).is_none_or(|(_, folder)| !is_made(&folder)));
            std::fs::remove_dir_all(folder).expect("removed");
            std::fs::remove_dir_all(path).expect("removed");
        }
        assert_eq!(settings(b"/usr/lib/libmemscope.so"), None);
    }
}
