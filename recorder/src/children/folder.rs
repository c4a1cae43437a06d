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
        let made = self.make().is_ok();
        self.made.store(made, Ordering::Relaxed);
        made
    }

    fn make(&self) -> Result<(), Errno> {
        if there(file::make_directory(&self.path, 0o700))? {
            // What lies in it is loaded into programs.
            let status = file::status_of(&self.path)?;
            if !status.is_private_directory(process::users().1) {
                return Err(Errno::FOREIGN);
            }
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
