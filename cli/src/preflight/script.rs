//! Scripts: which interpreter the kernel will start for a file.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// How much of a file the kernel looks at (`BINPRM_BUF_SIZE`).
const HEAD: usize = 256;

/// What the kernel does with an executable file.
#[derive(Debug, PartialEq, Eq)]
pub enum Kind {
    /// It is loaded itself.
    Image,
    /// It starts this interpreter.
    Interpreter(PathBuf),
    /// The kernel knows no format of it; `execvp` gives it to the shell.
    Shell,
    /// It cannot be read.
    Unreadable,
}

/// Tells by the first bytes of the file.
pub fn interpreter(path: &Path) -> Kind {
    match head(path) {
        Ok(head) => kind(&head),
        Err(_) => Kind::Unreadable,
    }
}

fn head(path: &Path) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(HEAD);
    File::open(path)?.take(HEAD as u64).read_to_end(&mut head)?;
    Ok(head)
}

fn kind(head: &[u8]) -> Kind {
    if head.starts_with(b"\x7fELF") {
        return Kind::Image;
    }
    let Some(line) = head.strip_prefix(b"#!") else { return Kind::Shell };
    let line = line.split(|b| *b == b'\n').next().unwrap_or_default();
    let blank = |b: &u8| matches!(b, b' ' | b'\t' | 0);
    match line.split(blank).find(|word| !word.is_empty()) {
        Some(word) => Kind::Interpreter(PathBuf::from(OsStr::from_bytes(word))),
        None => Kind::Shell,
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::{Kind, kind};

    #[test]
    fn the_first_line_is_read_as_the_kernel_reads_it() {
        let interpreter = |path: &str| Kind::Interpreter(PathBuf::from(path));
        assert_eq!(kind(b"#!/bin/sh\necho"), interpreter("/bin/sh"));
        assert_eq!(kind(b"#! \t/usr/bin/env  python3 -x\n"), interpreter("/usr/bin/env"));
        assert_eq!(kind(b"#!/bin/sh"), interpreter("/bin/sh"));
        assert_eq!(kind(b"#!/bin/sh\r\n"), interpreter("/bin/sh\r"));
        assert_eq!(kind(b"#!\n/bin/sh"), Kind::Shell);
        assert_eq!(kind(b"echo hello"), Kind::Shell);
        assert_eq!(kind(b""), Kind::Shell);
        assert_eq!(kind(b"\x7fELF\x02"), Kind::Image);
    }
}
