//! The file that a program is: which loader it will be given to, and whether that loads us.

use super::scratch::Scratch;
use crate::sys::file::{File, Status, numbered, read_link};
use crate::sys::process;
use core::ffi::{CStr, c_char};

/// How many interpreters the kernel follows from script to script.
const MOST_SCRIPTS: usize = 5;
/// Enough for the headers of a program and for the first line of a script.
const HEAD: usize = 1024;
const MOST_PATH: usize = 4096;
const MOST_SEGMENTS: usize = 64;

/// How a program is named to the system.
#[derive(Clone, Copy, Debug)]
pub enum Program<'a> {
    /// By a path.
    Path(&'a CStr),
    /// By a name that is looked for in these directories, unless a slash is in it.
    Search(&'a CStr, &'a [u8]),
    /// By a path that begins at an open directory; an empty path means what is open itself.
    At(i32, &'a CStr),
}

/// Who will load it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loader {
    /// glibc's; or it cannot be told, and most are.
    Glibc,
    /// glibc's, which ignores `LD_PRELOAD` for it: by being run it gains rights.
    Secure,
    /// None: it is statically linked.
    None,
    /// Another one for this architecture.
    Foreign,
    /// One for another architecture.
    OtherMachine,
}

/// What is known of a program's file.
#[derive(Debug)]
pub struct Image {
    loader: Loader,
    file: Option<File>,
}

/// Looks at the file that the kernel will load: that of the interpreter, where the program is a script.
pub fn look(program: Program<'_>) -> Image {
    let Some(mut room) = Scratch::take(HEAD + MOST_PATH) else { return Image::unknown() };
    let (head, rest) = room.bytes().split_at_mut(HEAD);
    let path = &mut rest[..MOST_PATH];
    open(program, path).map_or_else(Image::unknown, |file| follow(file, head, path))
}

impl Image {
    /// One of which nothing is known.
    pub const fn unknown() -> Self {
        Self { loader: Loader::Glibc, file: None }
    }

    /// Whether glibc's loader will do what `LD_PRELOAD` says.
    pub const fn is_loaded_by_glibc(&self) -> bool {
        matches!(self.loader, Loader::Glibc)
    }

    /// Whether a loader will heed `LD_PRELOAD` that can't load our library.
    pub const fn takes_other_libraries(&self) -> bool {
        matches!(self.loader, Loader::Foreign | Loader::OtherMachine)
    }

    /// Why it cannot be recorded.
    pub const fn unrecorded(&self) -> Option<&'static CStr> {
        match self.loader {
            Loader::Glibc => None,
            Loader::Secure => Some(c"it gains rights by being run, and the loader ignores LD_PRELOAD then"),
            Loader::None => Some(c"it is statically linked"),
            Loader::Foreign => Some(c"its loader is not that of glibc"),
            Loader::OtherMachine => Some(c"it is built for another machine"),
        }
    }

    /// Closes the file: the program is to find the descriptors that it would find without us.
    pub fn close(&mut self) {
        self.file = None;
    }

    /// Path of the file, until it is closed.
    pub fn path<'b>(&self, into: &'b mut [u8]) -> &'b [u8] {
        self.file.as_ref().map_or(&[], |file| path_of(file, into))
    }
}

fn path_of<'b>(file: &File, into: &'b mut [u8]) -> &'b [u8] {
    let mut name = [0; 32];
    let n = read_link(descriptor_path(file.fd(), &mut name), into).unwrap_or(0);
    &into[..n]
}

fn open(program: Program<'_>, room: &mut [u8]) -> Option<File> {
    let mut name = [0; 32];
    match program {
        Program::Path(path) => File::read_only_at(libc::AT_FDCWD, path),
        Program::Search(name, _) if name.to_bytes().contains(&b'/') => {
            File::read_only_at(libc::AT_FDCWD, name)
        }
        Program::Search(name, directories) => return search(name, directories, room),
        // It may be open for nothing but to be run.
        Program::At(at, path) if path.is_empty() => {
            File::read_only_at(libc::AT_FDCWD, descriptor_path(at, &mut name))
        }
        Program::At(at, path) => File::read_only_at(at, path),
    }
    .ok()
}

/// `/proc/self/fd/N`.
fn descriptor_path(fd: i32, into: &mut [u8; 32]) -> &CStr {
    numbered(b"/proc/self/fd/", fd.unsigned_abs(), into);
    CStr::from_bytes_until_nul(into).unwrap_or(c"")
}

/// As `execvp` looks: the first file of that name which may be run.
fn search(name: &CStr, directories: &[u8], path: &mut [u8]) -> Option<File> {
    directories.split(|&byte| byte == b':').find_map(|directory| {
        let slash: &[u8] = if directory.is_empty() { b"" } else { b"/" };
        let parts = [directory, slash, name.to_bytes_with_nul()];
        if parts.iter().map(|part| part.len()).sum::<usize>() > path.len() {
            return None;
        }
        path.iter_mut().zip(parts.iter().copied().flatten()).for_each(|(slot, byte)| *slot = *byte);
        let path = CStr::from_bytes_until_nul(path).ok()?;
        let file = File::read_only_at(libc::AT_FDCWD, path).ok()?;
        let is_program =
            |status: Status| status.mode & libc::S_IFMT == libc::S_IFREG && status.mode & 0o111 != 0;
        file.status().is_ok_and(is_program).then_some(file)
    })
}

/// Follows `#!` lines to the image.
fn follow(mut file: File, head: &mut [u8], path: &mut [u8]) -> Image {
    for _ in 0..=MOST_SCRIPTS {
        let n = file.read_at(head, 0).unwrap_or(0);
        let Some(interpreter) = interpreter(&head[..n], path) else {
            return Image { loader: loader(&file, &head[..n], path), file: Some(file) };
        };
        match File::read_only_at(libc::AT_FDCWD, interpreter) {
            Ok(next) => file = next,
            Err(_) => break,
        }
    }
    Image::unknown()
}

/// The interpreter that a script's first line names.
fn interpreter<'a>(head: &[u8], into: &'a mut [u8]) -> Option<&'a CStr> {
    let line = head.strip_prefix(b"#!")?.split(|&byte| byte == b'\n').next()?;
    let mut words = line.split(|byte| matches!(byte, b' ' | b'\t' | 0)).filter(|word| !word.is_empty());
    let word = words.next()?;
    into.iter_mut().zip(word.iter().chain(b"\0")).for_each(|(slot, byte)| *slot = *byte);
    CStr::from_bytes_until_nul(into).ok()
}

fn number(bytes: &[u8], at: usize, size: usize) -> u64 {
    let field = bytes.get(at..at + size).unwrap_or_default();
    field.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

/// Who loads the file that begins so.
fn loader(file: &File, head: &[u8], room: &mut [u8]) -> Loader {
    const CLASS_64: u8 = 2;
    const LITTLE_ENDIAN: u8 = 1;
    const X86_64: u64 = 62;
    if head.len() < 64 || !head.starts_with(b"\x7fELF") {
        return Loader::Glibc;
    }
    if (head[4], head[5]) != (CLASS_64, LITTLE_ENDIAN) || number(head, 18, 2) != X86_64 {
        return Loader::OtherMachine;
    }
    match asked_loader(file, head, room) {
        Some(true) if gains_rights(file) => Loader::Secure,
        Some(true) => Loader::Glibc,
        Some(false) => Loader::Foreign,
        // The loader itself may be run, too.
        None if is_glibc_loader(path_of(file, room)) => Loader::Glibc,
        None => Loader::None,
    }
}

/// Whether the loader that the program asks for is glibc's; `None` where it asks for none.
fn asked_loader(file: &File, head: &[u8], room: &mut [u8]) -> Option<bool> {
    const INTERPRETER: u64 = 3;
    let (table, size, count) = (number(head, 32, 8), number(head, 54, 2), number(head, 56, 2) as usize);
    for index in 0..count.min(MOST_SEGMENTS) {
        let mut segment = [0; 56];
        let offset = table.checked_add(index as u64 * size)?;
        read(file, head, offset, &mut segment)?;
        if number(&segment, 0, 4) == INTERPRETER {
            let length = (number(&segment, 32, 8) as usize).min(room.len());
            let path = &mut room[..length];
            read(file, head, number(&segment, 8, 8), path)?;
            let path = path.split(|&byte| byte == 0).next().unwrap_or_default();
            return Some(is_glibc_loader(path));
        }
    }
    None
}

/// Bytes of the file, from its head where they are there.
fn read(file: &File, head: &[u8], offset: u64, into: &mut [u8]) -> Option<()> {
    let start = usize::try_from(offset).ok()?;
    if let Some(known) = head.get(start..start.checked_add(into.len())?) {
        into.copy_from_slice(known);
        return Some(());
    }
    (file.read_at(into, offset) == Ok(into.len())).then_some(())
}

/// It has been called the same since x86-64 exists; before glibc 2.34 the file behind that link was called
/// `ld-2.31.so`.
fn is_glibc_loader(path: &[u8]) -> bool {
    let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    name == b"ld-linux-x86-64.so.2" || name.starts_with(b"ld-2.")
}

/// Whether the loader will run it in "secure mode".
fn gains_rights(file: &File) -> bool {
    let Ok(status) = file.status() else { return false };
    let (user, _) = process::users();
    let setgid = libc::S_ISGID | libc::S_IXGRP;
    let gains = status.mode & libc::S_ISUID != 0 && status.uid != user
        || status.mode & setgid == setgid && status.gid != process::group()
        || user != 0 && file.has_attribute(c"security.capability");
    gains && !process::gains_no_rights() && !file.on_nosuid_mount()
}

/// The value of a variable; what `execvp` takes where there is no `PATH`.
///
/// # Safety
/// `environ` is an environment, which lives for `'a`.
#[must_use]
pub unsafe fn directories<'a>(environ: super::Strings) -> &'a [u8] {
    let mut at: *const *const c_char = environ;
    // SAFETY: as promised by the caller.
    unsafe {
        while let Some(entry) = at.as_ref().and_then(|entry| entry.as_ref()) {
            if let Some(value) = CStr::from_ptr(entry).to_bytes().strip_prefix(b"PATH=") {
                return value;
            }
            at = at.add(1);
        }
    }
    b"/bin:/usr/bin"
}
