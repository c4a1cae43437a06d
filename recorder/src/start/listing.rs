//! Notes about this process itself, where it finds out that it can't be recorded: as those that a program leaves about what it starts
//! (`children/unrecorded.rs`), but written where memory can be had. And, by hand, files of the notes that it keeps for others.

use super::directory::{self, Directory};
use super::environment::{self, NOTHING};
use super::handoff;
use super::settings::Settings;
use crate::spool::notes;
use crate::sys::file::{self, File};
use crate::sys::{Errno, process, time};
use core::ffi::CStr;

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
pub fn list_this(why: &str) {
    let by_path = handoff::own_path().and_then(|path| handoff::settings(&path));
    list(&environment::settings(by_path.as_deref()), why);
}

/// The same, by these settings.
pub fn list(settings: &Settings, why: &str) {
    let joins = settings.joins.as_deref().filter(|&joins| joins != NOTHING && settings.follow);
    let Some(directory) = joins.map(Directory::known) else { return };
    if !file::accessible(&directory.mark(), libc::F_OK) {
        return;
    }
    // On a full disk an empty file says that much.
    let _ =
        make_file(&directory, process::pid(), &text(process::parent_pid(), why), |file, _| file.set_len(0));
}

/// Makes a file of a note, and does that with one which the text can't be written into. One that is there already with the same text
/// was made by somebody who was interrupted.
fn make_file(
    directory: &Directory,
    pid: u32,
    text: &[u8],
    unwritten: impl Fn(&File, &CStr) -> Result<(), Errno>,
) -> Result<(), Errno> {
    for number in 0..NUMBERS {
        let path = directory.file(&format!("{pid}-{number}.unrecorded"));
        match File::open(&path, libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL, 0o600) {
            Ok(file) => {
                return file.write_at(text, 0).inspect_err(|_| {
                    let _ = unwritten(&file, &path);
                });
            }
            Err(Errno::EEXIST) => {
                let mut there = vec![0; text.len() + 1];
                if process::read_file(&path, &mut there).is_ok_and(|n| there[..n] == *text) {
                    return Ok(());
                }
            }
            Err(error) => return Err(error),
        }
    }
    Err(Errno::EEXIST)
}

/// An empty file says at least which process it is about.
fn emptied(file: &File, _: &CStr) -> Result<(), Errno> {
    file.set_len(0)
}

fn removed(_: &File, path: &CStr) -> Result<(), Errno> {
    file::remove(path)
}

/// Makes files of the notes that were left in this process's spool by now; false where that fails.
#[must_use]
pub fn make_files(directory: &Directory) -> bool {
    notes::all().all(|(_, pid, text)| make_file(directory, pid, text, removed).is_ok())
}

/// The same for those that came since, after which there is no way to leave one.
pub fn make_last_files(directory: &Directory) {
    notes::close();
    for (kept, pid, text) in notes::all() {
        if kept.take() {
            let _ = make_file(directory, pid, text, emptied);
        }
    }
}
