//! Notes about this process itself, where it finds out that it can't be recorded: as those that a program leaves about what it starts
//! (`children/unrecorded.rs`), but written where memory can be had.

use super::directory::{self, Directory};
use super::environment::NOTHING;
use super::settings::Settings;
use crate::sys::file::{self, File};
use crate::sys::{Errno, process, time};

/// Names that are tried.
const NUMBERS: u32 = 10_000;

/// The text of a note.
pub fn text(parent: u32, why: &str) -> Vec<u8> {
    let mut text = format!("{parent}\0{}\0{why}\0", time::realtime_ns()).into_bytes();
    for part in core::iter::once(directory::executable()).chain(process::read_words(c"/proc/self/cmdline")) {
        text.extend_from_slice(&part);
        text.push(0);
    }
    text
}

/// Lists this process in the recording that it would have joined, if there is one.
pub fn list(settings: &Settings, why: &str) {
    let joins = settings.joins.as_deref().filter(|&joins| joins != NOTHING && settings.follow);
    let Some(directory) = joins.map(Directory::known) else { return };
    if !file::accessible(&directory.mark(), libc::F_OK) {
        return;
    }
    let text = text(process::parent_pid(), why);
    for number in 0..NUMBERS {
        let path = directory.file(&format!("{}-{number}.unrecorded", process::pid()));
        match File::open(&path, libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL, 0o600) {
            Ok(file) if file.write_at(&text, 0).is_ok() => return,
            Ok(_) => return file::remove(&path).unwrap_or_default(),
            Err(Errno::EEXIST) => {}
            Err(_) => return,
        }
    }
}
