//! Notes about programs that cannot be recorded: one small file each, beside the traces.
//!
//! `PID-N.unrecorded` holds strings, each with a NUL behind it: the parent's process id, the time in ns since
//! the Unix epoch, why, the path of the image, and the arguments. `memscope-cli` reads them
//! (`shared/src/analysis/unrecorded.rs`).

use super::Strings;
use super::image::Image;
use crate::sys::file::{self, File};
use crate::sys::{Errno, memory, process, time};
use core::ffi::CStr;
use core::fmt::{self, Write};

/// Longer lists of arguments are cut.
const MOST: usize = 64 << 10;
/// Names that are tried.
const NUMBERS: u32 = 10_000;
const PATH: usize = 4096 + 64;

/// A note that was left.
#[derive(Debug)]
pub struct Note {
    path: [u8; PATH],
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

impl Note {
    /// Leaves a note about the program that this process becomes, or that has been started as process `pid`. What
    /// cannot be noted stays unnoted.
    ///
    /// # Safety
    /// `argv` is null or an array of C strings with a null pointer behind the last.
    pub unsafe fn leave(
        directory: &CStr,
        why: &CStr,
        image: &Image,
        argv: Strings,
        pid: Option<u32>,
    ) -> Option<Self> {
        let (pid, parent) = match pid {
            Some(pid) => (pid, process::pid()),
            None => (process::pid(), process::parent_pid()),
        };
        let memory = memory::map_private(MOST).ok()?;
        // SAFETY: newly mapped, and nobody else's; the arguments are as promised.
        let note = unsafe {
            let bytes = core::slice::from_raw_parts_mut(memory, MOST);
            let used = describe(bytes, parent, why, image, argv);
            Self::write(directory, pid, &bytes[..used])
        };
        // SAFETY: nothing borrows from it any more.
        let _ = unsafe { memory::unmap(memory, MOST) };
        note
    }

    fn write(directory: &CStr, pid: u32, bytes: &[u8]) -> Option<Self> {
        let mut note = Self { path: [0; PATH] };
        for number in 0..NUMBERS {
            let mut page = Page { bytes: &mut note.path, used: 0 };
            page.push(directory.to_bytes());
            let _ = write!(page, "/{pid}-{number}.unrecorded\0");
            match File::open(note.path()?, libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL, 0o600) {
                Ok(file) if file.write_at(bytes, 0).is_ok() => return Some(note),
                Ok(_) => {
                    note.withdraw();
                    return None;
                }
                Err(Errno::EEXIST) => {}
                Err(_) => return None,
            }
        }
        None
    }

    fn path(&self) -> Option<&CStr> {
        CStr::from_bytes_until_nul(&self.path).ok()
    }

    /// Takes it back: nothing has become of the program.
    pub fn withdraw(self) {
        self.path().into_iter().for_each(|path| {
            let _ = file::remove(path);
        });
    }
}

/// # Safety
/// As for [`Note::leave`].
unsafe fn describe(bytes: &mut [u8], parent: u32, why: &CStr, image: &Image, argv: Strings) -> usize {
    let mut page = Page { bytes, used: 0 };
    let _ = write!(page, "{parent}\0{}\0", time::realtime_ns());
    page.push(why.to_bytes_with_nul());
    let mut path = [0; 4096];
    page.push(image.path(&mut path));
    page.push(b"\0");
    let mut at = argv;
    // SAFETY: as promised by the caller.
    unsafe {
        while let Some(argument) = at.as_ref().and_then(|argument| argument.as_ref()) {
            page.push(CStr::from_ptr(argument).to_bytes_with_nul());
            at = at.add(1);
        }
    }
    page.used
}
