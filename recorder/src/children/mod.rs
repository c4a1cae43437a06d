//! Programs that this one starts: what their environment needs to have them recorded, too.
//!
//! The hooks of the `exec` family and of `posix_spawn` call [`exec`] and [`spawn`]. These may run anywhere: in a signal
//! handler, in the child of a `vfork` on its parent's memory, with any library lock held. So they
//! allocate nothing and make system calls only; what they build lies in memory of their own ([`scratch`]): there may
//! be little stack.
//!
//! * [`image`] looks at the file: whether glibc's loader will load it, and us with it.
//! * [`environment`] says what has to change in `LD_PRELOAD`, and makes the changed array.
//! * [`loan`] puts our entry into the process's own environment for a while, in turn with the program's changes ([`turns`]).
//! * [`pointers`] tells what the kernel would not take.
//! * [`folder`] is what the library's path leads to.
//! * [`unrecorded`] leaves a note in the recording about a program that cannot be recorded.
//!
//! Only `LD_PRELOAD` is ever touched. The path put there leads to the settings of this recording
//! (`start/handoff.rs`).

mod carry;
mod environment;
mod folder;
mod image;
mod loan;
mod pointers;
mod scratch;
#[cfg(test)]
mod tests;
mod turns;
mod unrecorded;

pub use folder::Folder;
pub use image::{Program, directories};
pub use pointers::is_text;
pub use scratch::with_words;
pub use turns::forked;

use crate::sys::file::{self, File};
use crate::sys::{Errno, descriptors, process};
use core::ffi::{CStr, c_char, c_int};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, Ordering};
use environment::{Change, Environment};
use image::Image;
use std::ffi::CString;
use turns::Turn;
use unrecorded::{Listing, Note};

/// Strings, with a null pointer behind the last.
pub type Strings = *const *const c_char;

/// What is handed on to the programs that this one starts.
#[derive(Debug)]
pub struct Inheritance {
    /// The library's path as it was loaded.
    pub library: CString,
    /// The path by which it finds the settings of this recording; empty where there is none.
    pub leading: CString,
    /// The folder that this path leads into, where it may still have to be made.
    pub folder: Option<Folder>,
    /// The recording.
    pub directory: CString,
    /// A file in it that only those can open who may record there.
    pub mark: CString,
    /// Children are recorded.
    pub follow: bool,
}

static INHERITANCE: AtomicPtr<Inheritance> = AtomicPtr::new(null_mut());

/// Says what is handed on from now on.
pub fn hand_on(inheritance: Inheritance) {
    loan::prepare();
    INHERITANCE.store(Box::into_raw(Box::new(inheritance)), Ordering::Release);
}

/// The process is about to lose what it needs to make the folder, or to find memory: both are seen to now.
pub fn before_leaving() {
    if let Some(ours) = inheritance() {
        let _ = ours.folder.as_ref().is_none_or(Folder::is_made);
        loan::set_aside();
    }
}

fn inheritance() -> Option<&'static Inheritance> {
    // SAFETY: made once per process image and never freed.
    unsafe { INHERITANCE.load(Ordering::Acquire).as_ref() }
}

/// Becomes another program: `call` does, with the environment that it is given, and returns only where it failed.
///
/// # Safety
/// `argv` and `envp` are such as `execve` takes, also if that refuses them.
pub unsafe fn exec(
    program: Program<'_>,
    argv: Strings,
    envp: Strings,
    call: impl FnOnce(Strings) -> c_int,
) -> c_int {
    // SAFETY: as promised by the caller.
    let sound = unsafe { pointers::are_strings(argv) && pointers::are_strings(envp) };
    let Some(ours) = inheritance().filter(|_| sound) else { return call(envp) };
    let mut image = image::look(program);
    // SAFETY: as promised by the caller.
    let before = unsafe { Environment::of(envp) };
    let note = ours.lists(&image, &before).and_then(|why| {
        // SAFETY: as promised by the caller.
        let listing = unsafe { Listing::of(why, &image, argv, process::parent_pid()) }?;
        listing.leave(&ours.directory, process::pid())
    });
    image.close();
    // SAFETY: as promised by the caller.
    let result = unsafe { ours.with_environment(&image, envp, call) };
    // Here nothing has become of it.
    note.into_iter().for_each(Note::withdraw);
    result
}

/// Starts another program: `call` does, with the environment that it is given, and then says which process it is;
/// `None` where it failed.
///
/// # Safety
/// `argv` and `envp` are such as `posix_spawn` takes.
pub unsafe fn spawn(
    program: Program<'_>,
    argv: Strings,
    envp: Strings,
    call: impl FnOnce(Strings) -> (c_int, Option<u32>),
) -> c_int {
    // SAFETY: as promised by the caller.
    let sound = unsafe { pointers::are_strings(argv) && pointers::are_strings(envp) };
    let Some(ours) = inheritance().filter(|_| sound) else { return call(envp).0 };
    let mut image = image::look(program);
    // SAFETY: as promised by the caller.
    let before = unsafe { Environment::of(envp) };
    // SAFETY: as promised by the caller.
    let listing =
        ours.lists(&image, &before).and_then(|why| unsafe { Listing::of(why, &image, argv, process::pid()) });
    image.close();
    // SAFETY: as promised by the caller.
    let (result, pid) = unsafe { ours.with_environment(&image, envp, call) };
    if let (Some(pid), Some(listing)) = (pid, listing) {
        let _ = listing.leave(&ours.directory, pid);
    }
    result
}

/// Calls a function that starts the shell with the process's own environment, which the program may have
/// changed. Where ours is missing there, it is put in for as long as the call lasts ([`loan`]).
///
/// # Safety
/// `environ` is the process's own, and `call` may replace it as `setenv` does.
pub unsafe fn shell<R>(environ: *mut Strings, call: impl FnOnce() -> R) -> R {
    // SAFETY: as promised by the caller.
    let _lent = inheritance().and_then(|ours| unsafe { loan::Call::begin(ours, environ) });
    call()
}

/// Calls a function that changes the process's own environment: not while a shell's entry comes or goes.
pub fn environment_change<R>(call: impl FnOnce() -> R) -> R {
    let _turn = inheritance().map(|_| Turn::of_change());
    call()
}

impl Inheritance {
    /// Why the program that has this image is to be listed as one that is not recorded.
    fn lists(&self, image: &Image, before: &Environment<'_>) -> Option<&'static CStr> {
        if !self.follow {
            return None;
        }
        image.unrecorded().or_else(|| {
            if self.is_forbidden() {
                return Some(c"it may not write into the recording: it runs as another user");
            }
            let reachable = self.leads() || self.is_found(before);
            (!reachable).then_some(c"libmemscope.so cannot be opened from where it runs")
        })
    }

    /// Whether the path that leads to the settings can be opened.
    fn leads(&self) -> bool {
        let Some(folder) = &self.folder else { return can_be_loaded(&self.leading) };
        folder.is_made() && can_be_loaded(&self.leading)
            || folder.is_made_again() && can_be_loaded(&self.leading)
    }

    /// Whether a program with this environment finds the recording without that path.
    fn is_found(&self, before: &Environment<'_>) -> bool {
        match before.library(self) {
            Some(library) if library == self.leading.to_bytes() => false,
            Some(library) if library == self.library.to_bytes() => {
                before.names_directory && can_be_loaded(&self.library)
            }
            // Somebody else's: another recording.
            other => other.is_some(),
        }
    }

    /// Whether the rights that a program started now will have do not suffice for the recording's directory, which is private.
    fn is_forbidden(&self) -> bool {
        let Err(error) = File::read_only(&self.mark) else { return self.is_only_lent() };
        matches!(error, Errno(libc::EACCES | libc::EPERM))
    }

    /// Whether the process can open what is private only by a capability that `exec` takes away: it has changed its user, and kept
    /// some rights.
    fn is_only_lent(&self) -> bool {
        let user = process::users().1;
        user != 0
            && file::status_of(&self.mark).is_ok_and(|mark| mark.uid != user)
            && !process::keeps_capability(process::DAC_OVERRIDE)
    }

    /// Calls with the environment that the program of this image is to have.
    ///
    /// # Safety
    /// `envp` is an environment.
    unsafe fn with_environment<R>(&self, image: &Image, envp: Strings, call: impl FnOnce(Strings) -> R) -> R {
        // SAFETY: as promised by the caller.
        let before = unsafe { Environment::of(envp) };
        let change = self.change(image, &before);
        if matches!(change, Change::None) {
            return call(envp);
        }
        with_words(before.words(&self.leading), |words| match words {
            // SAFETY: the environment is as it was measured: nobody may change it during the call.
            Some(words) => call(unsafe { before.write(&change, self, words) }),
            None => call(envp),
        })
    }

    /// What has to change. A library that glibc's loader cannot open would be an error on the program's stderr,
    /// and one that another loader opens its end.
    fn change<'a>(&'a self, image: &Image, before: &Environment<'_>) -> Change<'a> {
        if image.takes_other_libraries() {
            return if before.names_us(self) { Change::Remove } else { Change::None };
        }
        if !image.is_loaded_by_glibc() {
            return Change::None;
        }
        if before.names_us(self) && self.is_forbidden() {
            return Change::Remove;
        }
        let stays = match before.library(self) {
            Some(library) if library == self.leading.to_bytes() => self.leads(),
            // Somebody else's: another recording.
            Some(library) if library != self.library.to_bytes() => true,
            Some(_) => before.names_directory && can_be_loaded(&self.library),
            None => !self.follow || self.is_forbidden(),
        };
        if stays {
            Change::None
        } else if self.leads() {
            Change::Set(&self.leading)
        } else if before.names_us(self) {
            Change::Remove
        } else {
            Change::None
        }
    }
}

/// Whether the loader will be able to open the library, with the rights and the root that the process has now. That there
/// is no descriptor left says little: those that are closed by then make room.
fn can_be_loaded(library: &CStr) -> bool {
    match File::read_only(library) {
        _ if library.is_empty() => false,
        Ok(_) | Err(Errno(libc::ENFILE)) => true,
        Err(Errno(libc::EMFILE)) => descriptors::is_room_in_program(),
        Err(_) => false,
    }
}
