//! Notes about programs that cannot be recorded: one small file each, beside the traces.
//!
//! `PID-N.unrecorded` holds strings, each with a NUL behind it: the parent's process id, the time in ns since
//! the Unix epoch, why, the path of the image, and the arguments. `memscope-cli` reads them
//! (`shared/src/analysis/unrecorded.rs`). Where the process may not make the file any more, the note goes into its spool
//! ([`crate::spool::notes`]).

use super::Strings;
use super::image::Image;
use super::scratch::Scratch;
use crate::spool::notes::{self, Kept};
use crate::sys::file::{self, File};
use crate::sys::{Errno, time};
use core::ffi::CStr;
use core::fmt::{self, Write};

/// Longer lists of arguments are cut.
const MOST: usize = 64 << 10;
/// Names that are tried.
const NUMBERS: u32 = 10_000;
/// Of the file of a note.
const PATH: usize = 4096 + 64;
/// Of the file of a program.
const MOST_PATH: usize = 4096;

/// What a note is to say.
#[derive(Debug)]
pub struct Listing {
    text: Scratch,
    used: usize,
}

/// A note that was left.
#[derive(Debug)]
pub enum Note<'a> {
    /// As this file of the recording: the process and a number.
    File(&'a CStr, u32, u32),
    /// In the spool.
    Spool(Kept),
}

/// Bytes that are written in place; what is beyond the end is lost.
struct Page<'a> {
    bytes: &'a mut [u8],
    used: usize,
}

impl Page<'_> {
    fn push(&mut self, bytes: &[u8]) {
        let room = self.bytes.len() - self.used;
        let n = bytes.len().min(room);
        self.bytes[self.used..self.used + n].copy_from_slice(&bytes[..n]);
        self.used += n;
    }
}

impl Write for Page<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push(text.as_bytes());
        Ok(())
    }
}

impl Listing {
    /// Describes a program that `parent` starts, whose file is still open; `None` where there is no memory.
    ///
    /// # Safety
    /// `argv` is null or an array of C strings with a null pointer behind the last.
    pub unsafe fn of(why: &CStr, image: &Image, argv: Strings, parent: u32) -> Option<Self> {
        let mut text = Scratch::take(MOST + PATH)?;
        let mut page = Page { bytes: &mut text.bytes()[..MOST], used: 0 };
        let _ = write!(page, "{parent}\0{}\0", time::realtime_ns());
        page.push(why.to_bytes_with_nul());
        let path = image.path(&mut page.bytes[page.used..][..MOST_PATH]).len();
        page.used += path;
        page.push(b"\0");
        let mut at = argv;
        // SAFETY: as promised by the caller.
        unsafe {
            while let Some(argument) = at.as_ref().and_then(|argument| argument.as_ref()) {
                page.push(CStr::from_ptr(argument).to_bytes_with_nul());
                at = at.add(1);
            }
        }
        let used = page.used;
        Some(Self { text, used })
    }

    /// Leaves a note about the program that process `pid` is or becomes. What cannot be noted stays unnoted.
    pub fn leave(mut self, directory: &CStr, pid: u32) -> Option<Note<'_>> {
        let (text, room) = self.text.bytes().split_at_mut(MOST);
        let text = &text[..self.used];
        for number in 0..NUMBERS {
            let path = path_of(directory, pid, number, room)?;
            match File::open(path, libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL, 0o600) {
                Ok(file) if file.write_at(text, 0).is_ok() => {
                    return Some(Note::File(directory, pid, number));
                }
                Err(Errno::EEXIST) => {}
                made => {
                    // A file without room for its text.
                    let _ = made.map(|_| file::remove(path));
                    return notes::leave(pid, text).map(Note::Spool);
                }
            }
        }
        None
    }
}

impl Note<'_> {
    /// Takes it back: nothing has become of the program.
    pub fn withdraw(self) {
        let (directory, pid, number) = match self {
            Self::File(directory, pid, number) => (directory, pid, number),
            Self::Spool(kept) => return kept.withdraw(),
        };
        let Some(mut room) = Scratch::take(PATH) else { return };
        if let Some(path) = path_of(directory, pid, number, room.bytes()) {
            let _ = file::remove(path);
        }
    }
}

fn path_of<'a>(directory: &CStr, pid: u32, number: u32, room: &'a mut [u8]) -> Option<&'a CStr> {
    let mut page = Page { bytes: room, used: 0 };
    page.push(directory.to_bytes());
    let _ = write!(page, "/{pid}-{number}.unrecorded\0");
    CStr::from_bytes_until_nul(page.bytes).ok()
}
