//! A test's folder, and what the recordings in it have left outside of it.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// How deep recordings lie in a test's folder, at the most.
const DEPTH: usize = 4;

/// A fresh folder, gone when dropped. The spools of recordings that lie in it go with it: those of a recording that no test
/// has read to its end would stay for good.
#[derive(Debug)]
pub struct TempDir(tempfile::TempDir);

impl TempDir {
    /// Makes it.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new() -> io::Result<Self> {
        tempfile::TempDir::new().map(Self)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl AsRef<Path> for TempDir {
    fn as_ref(&self) -> &Path {
        self.path()
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        for spool in spools_below(self.path(), DEPTH) {
            let _ = fs::remove_file(spool);
        }
    }
}

/// The spools that traces in this folder name, those in shared memory only: the others lie beside their traces.
fn spools_below(folder: &Path, depth: usize) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let (path, kind) = (entry.path(), entry.file_type());
        if kind.as_ref().is_ok_and(fs::FileType::is_dir) && depth > 0 {
            found.extend(spools_below(&path, depth - 1));
        } else if kind.is_ok_and(|kind| kind.is_file()) && is_trace(&path) {
            found.extend(spool_of(&path));
        }
    }
    found
}

fn is_trace(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "trace" || extension == "new")
}

/// The spool that a trace names in its beginning.
fn spool_of(trace: &Path) -> Option<PathBuf> {
    const START: &[u8] = b"/dev/shm/memscope-";
    const END: &[u8] = b".spool";
    let mut text = Vec::new();
    fs::File::open(trace).ok()?.take(16 << 10).read_to_end(&mut text).ok()?;
    let start = text.windows(START.len()).position(|window| window == START)?;
    let name: Vec<u8> =
        text[start + START.len()..].iter().copied().take_while(u8::is_ascii_hexdigit).collect();
    let whole = name.len() == 24 && text[start + START.len() + name.len()..].starts_with(END);
    let name = String::from_utf8(name).ok().filter(|_| whole)?;
    Some(PathBuf::from(format!("/dev/shm/memscope-{name}.spool")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spools_go_with_the_folder() {
        let name = format!("/dev/shm/memscope-{:024x}.spool", std::process::id());
        let folder = TempDir::new().expect("a folder");
        let rec = folder.path().join("a/rec");
        fs::create_dir_all(&rec).expect("made");
        fs::write(rec.join("1-0.trace"), [b"MEMTRACE\x01\xff", name.as_bytes(), b"\0more"].concat())
            .expect("written");
        fs::write(rec.join("2-0.trace"), b"/dev/shm/memscope-other").expect("written");
        fs::write(&name, b"").expect("written");
        assert_eq!(spools_below(folder.path(), DEPTH), [PathBuf::from(&name)]);
        drop(folder);
        assert!(!Path::new(&name).exists());
    }
}
