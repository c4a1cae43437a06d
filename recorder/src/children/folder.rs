//! The folder by which programs with an environment of their own find the recording's settings (`start/handoff.rs`), made when the
//! first program is started: most processes start none, and three new files would be the dearer part of beginning a recording.
//!
//! ```text
//! RECORDING/.preload/
//!   settings -> the settings, as a text
//!   libmemscope.so -> the library
//! ```
//!
//! Both are links, which need no descriptor: a program may have used up its own. All processes of a recording make the
//! same, and the library's link comes last; so who finds a part of it there just goes on.

use crate::sys::file;
use crate::sys::{Errno, process};
use core::sync::atomic::{AtomicBool, Ordering};
use std::ffi::CString;

/// What is to be made.
#[derive(Debug)]
pub struct Folder {
    /// The folder.
    pub path: CString,
    /// The link that holds the settings, and what it says.
    pub settings: (CString, CString),
    /// The link to the library, and where it leads.
    pub library: (CString, CString),
    /// It is there, as far as this process knows.
    pub made: AtomicBool,
}

impl Folder {
    /// Makes it where that has not been done; false where it can't be, or might be somebody else's. System calls only.
    pub fn is_made(&self) -> bool {
        if self.made.load(Ordering::Relaxed) {
            return true;
        }
        self.is_made_again()
    }

    /// The same where it was found to have gone.
    pub fn is_made_again(&self) -> bool {
        let made = self.make().is_ok();
        self.made.store(made, Ordering::Relaxed);
        made
    }

    fn make(&self) -> Result<(), Errno> {
        there(file::make_directory(&self.path, 0o700))?;
        // What lies in it is loaded into programs.
        let status = file::status_of(&self.path)?;
        if !status.is_private_directory(process::users().1) {
            return Err(Errno::FOREIGN);
        }
        if status.mode & 0o700 != 0o700 {
            // Whatever the program's umask took away, or that of another process.
            file::set_mode(&self.path, 0o700)?;
        }
        let link = |(path, target): &(CString, CString)| there(file::make_link(target, path));
        link(&self.settings)?;
        link(&self.library).map(drop)
    }
}

/// Whether it was there before.
fn there(made: Result<(), Errno>) -> Result<bool, Errno> {
    match made {
        Ok(()) => Ok(false),
        Err(Errno::EEXIST) => Ok(true),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    use std::path::Path;

    fn folder(path: &Path) -> Folder {
        let text = |path: &Path| CString::new(path.to_str().expect("text")).expect("no NUL");
        let link = |name: &str, target: &str| (text(&path.join(name)), text(Path::new(target)));
        Folder {
            path: text(path),
            settings: link("settings", "MEMSCOPE_FOLLOW=1"),
            library: link("libmemscope.so", "/proc/self/exe"),
            made: AtomicBool::new(false),
        }
    }

    #[test]
    fn whatever_the_umask_was_and_whoever_removed_it() {
        let base = std::env::temp_dir().join(format!("memscope-folder-{}", std::process::id()));
        fs::create_dir(&base).expect("made");
        let path = base.join(".preload");
        // As a process with the umask 0177 leaves it.
        fs::DirBuilder::new().mode(0o600).create(&path).expect("made");
        let first = folder(&path);
        for _ in 0..2 {
            assert!(first.is_made());
            assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o700);
            assert_eq!(
                fs::read_link(path.join("libmemscope.so")).expect("a link"),
                Path::new("/proc/self/exe")
            );
            fs::remove_dir_all(&path).expect("removed");
            assert!(first.is_made() && !path.exists(), "this process thinks so");
            assert!(first.is_made_again());
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).expect("changed");
        assert!(!folder(&path).is_made(), "others may have put something there");
        fs::remove_dir_all(base).expect("removed");
    }
}
