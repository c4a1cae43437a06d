//! The recording directory: its name, its making, and what marks it.

use crate::sys::file::{self, File};
use crate::sys::{Errno, process};
use std::ffi::CString;

/// `memscope-cli run` puts this file into the directory while it runs: it will complete the traces. It holds the launcher's
/// id and the words of the command as they were given to it, each with a NUL behind it.
const LAUNCHER: &str = ".run";
/// Holds the id of the first process of the recording, its start and its pid namespace.
const FIRST: &str = ".first";

/// The directory of a recording, absolute.
#[derive(Clone, Debug)]
pub struct Directory {
    path: Vec<u8>,
}

impl Directory {
    /// The directory that `wanted` (the default where `None`) names, made where it is missing.
    pub fn make(wanted: Option<&[u8]>) -> Result<Self, Errno> {
        let name = expand(wanted.unwrap_or(b"memscope-%e-%p"), process::pid(), program_name);
        let directory = Self { path: absolute(&name)? };
        let new = directory.make_all()?;
        directory.is_ours(new)?;
        Ok(directory)
    }

    /// One that an ancestor has made.
    #[must_use]
    pub fn known(path: &[u8]) -> Self {
        Self { path: path.to_vec() }
    }

    /// Refuses a directory that somebody else may rearrange, and a link that may lead to one. A `new` one gets its mode.
    fn is_ours(&self, new: bool) -> Result<(), Errno> {
        let path = CString::new(self.path.as_slice()).map_err(|_| Errno(libc::EINVAL))?;
        let status = file::status_of(&path)?;
        let is = |kind| status.mode & libc::S_IFMT == kind;
        if !is(libc::S_IFDIR) && !is(libc::S_IFLNK) {
            return Err(Errno(libc::ENOTDIR));
        }
        if is(libc::S_IFLNK) || ![process::users().1, 0].contains(&status.uid) {
            return Err(Errno::FOREIGN);
        }
        if new && status.mode & 0o777 != 0o700 {
            // Whatever the program's umask took away.
            file::set_mode(&path, 0o700)?;
        }
        Ok(())
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &[u8] {
        &self.path
    }

    /// Makes it, and where there are none the directories that it lies in; true where it is new.
    fn make_all(&self) -> Result<bool, Errno> {
        let part = |end: usize| CString::new(&self.path[..end]).map_err(|_| Errno(libc::EINVAL));
        let whole = part(self.path.len())?;
        let make = || match file::make_directory(&whole, 0o700) {
            Ok(()) => Ok(true),
            Err(Errno::EEXIST) => Ok(false),
            Err(error) => Err(error),
        };
        if let Err(Errno::ENOENT) = make() {
            let slashes = self.path.iter().enumerate().skip(1).filter(|&(_, &byte)| byte == b'/');
            for (end, _) in slashes {
                let parent = part(end)?;
                // One that can't be made may still be there; the last part tells.
                if file::make_directory(&parent, 0o700).is_ok() {
                    file::set_mode(&parent, 0o700)?;
                }
            }
        }
        make()
    }

    /// A file of the directory.
    #[must_use]
    pub fn file(&self, name: &str) -> CString {
        let path = [&self.path, b"/".as_slice(), name.as_bytes()].concat();
        CString::new(path).unwrap_or_default()
    }

    /// The mark of its first process, which nobody but its user can open.
    #[must_use]
    pub fn mark(&self) -> CString {
        self.file(FIRST)
    }

    /// True while `memscope-cli run` looks after the recording.
    #[must_use]
    pub fn has_launcher(&self) -> bool {
        file::accessible(&self.file(LAUNCHER), libc::F_OK)
    }

    /// The command that `memscope-cli run` was given; empty where there is no launcher.
    #[must_use]
    pub fn command(&self) -> Vec<Vec<u8>> {
        process::read_words(&self.file(LAUNCHER)).into_iter().skip(1).collect()
    }

    /// True where this is the first process of the recording (in whatever image). The first to ask is it.
    #[must_use]
    pub fn is_first(&self, us: &Birth) -> bool {
        let path = self.file(FIRST);
        let us = format!("{} {} {}", process::pid(), us.start_ticks, us.namespace);
        match File::open_briefly(&path, libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL, 0o600) {
            Ok(file) => file.write_at(us.as_bytes(), 0).is_ok(),
            Err(_) => {
                let mut text = [0; 64];
                let n = process::read_file(&path, &mut text).unwrap_or(0);
                // In another namespace, another process has the same id.
                text[..n] == *us.as_bytes()
            }
        }
    }
}

/// What tells this process from all others with its number. Reading it is dear.
#[derive(Clone, Copy, Debug)]
pub struct Birth {
    /// See `process::start_ticks`.
    pub start_ticks: u64,
    /// See `process::namespace`.
    pub namespace: u64,
}

impl Birth {
    /// Of the calling process.
    #[must_use]
    pub fn of_this_process() -> Self {
        Self { start_ticks: process::start_ticks(), namespace: process::namespace() }
    }
}

/// Puts pid and program name in for `%p` and `%e`.
fn expand(pattern: &[u8], pid: u32, program: impl Fn() -> Vec<u8>) -> Vec<u8> {
    let mut out = Vec::with_capacity(pattern.len() + 32);
    let mut rest = pattern.iter().copied().peekable();
    while let Some(byte) = rest.next() {
        match (byte, rest.peek()) {
            (b'%', Some(b'p')) => out.extend_from_slice(pid.to_string().as_bytes()),
            (b'%', Some(b'e')) => out.extend_from_slice(&program()),
            _ => {
                out.push(byte);
                continue;
            }
        }
        rest.next();
    }
    out
}

/// Makes a path absolute by the working directory; a final slash goes.
pub fn absolute(path: &[u8]) -> Result<Vec<u8>, Errno> {
    if path.starts_with(b"/") { Ok(absolute_from(b"", path)) } else { Ok(absolute_from(&working()?, path)) }
}

/// The working directory.
pub fn working() -> Result<Vec<u8>, Errno> {
    let mut cwd = [0; 4096];
    let n = file::working_directory(&mut cwd)?;
    Ok(cwd[..n.saturating_sub(1)].to_vec())
}

/// Makes a path absolute by this directory; a final slash goes.
#[must_use]
pub fn absolute_from(directory: &[u8], path: &[u8]) -> Vec<u8> {
    let mut whole = match directory.strip_suffix(b"/").unwrap_or(directory) {
        _ if path.starts_with(b"/") => path.to_vec(),
        directory => [directory, b"/", path].concat(),
    };
    while whole.len() > 1 && whole.ends_with(b"/") {
        whole.pop();
    }
    whole
}

/// File name of the executable.
fn program_name() -> Vec<u8> {
    let exe = executable();
    exe.rsplit(|&byte| byte == b'/').next().unwrap_or_default().to_vec()
}

/// Path of the executable.
#[must_use]
pub fn executable() -> Vec<u8> {
    let mut path = [0; 4096];
    let n = file::read_link(c"/proc/self/exe", &mut path).unwrap_or(0);
    path[..n].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_expanded() {
        assert_eq!(expand(b"a%p-%e%%p%", 12, || b"x y".into()), b"a12-x y%12%");
        assert_eq!(absolute(b"/a/b//").unwrap(), b"/a/b");
        assert!(absolute(b"rel").unwrap().ends_with(b"/rel"));
        assert_eq!(absolute_from(b"/", b"rel/"), b"/rel");
        assert_eq!(absolute_from(b"/a", b"rel"), b"/a/rel");
    }
}
