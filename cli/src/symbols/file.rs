//! Which files can tell the names in a module: the module itself, and debug files that belong to it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::elf;

/// Directories in which distributions keep debug files.
pub const DEBUG_DIRECTORIES: [&str; 2] = ["/usr/lib/debug", "/usr/local/lib/debug"];

/// A mapped file, as the recording names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ModuleFile {
    /// Its path. Any bytes.
    pub path: Vec<u8>,
    /// Its build-id; empty where it has none.
    pub build_id: Vec<u8>,
}

/// Where names are to be looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file and its DWARF, followed to other files by debug links.
    Debug(PathBuf),
    /// A file's symbol table alone.
    Table(PathBuf),
}

/// Why a module has no names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// It is no file at all (the vdso).
    NoFile,
    /// The file is gone or cannot be read.
    Missing,
    /// It is another build than the one that was recorded.
    Changed,
}

impl Unusable {
    /// The reason in words.
    pub const fn text(self) -> &'static str {
        match self {
            Self::NoFile => "it is no file",
            Self::Missing => "the file is gone or cannot be read",
            Self::Changed => "the file is not the build that was recorded",
        }
    }
}

impl ModuleFile {
    /// The path.
    pub fn path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.path))
    }

    /// Places to look, best first.
    pub fn sources(&self) -> Result<Vec<Source>, Unusable> {
        self.sources_with(&DEBUG_DIRECTORIES.map(Path::new))
    }

    pub(super) fn sources_with(&self, debug_directories: &[&Path]) -> Result<Vec<Source>, Unusable> {
        let path = self.path();
        if !path.is_absolute() {
            return Err(Unusable::NoFile);
        }
        // The library finds a debug file by its link, but not one by its build-id.
        let mut sources: Vec<Source> = self.debug_files(debug_directories).map(Source::Debug).collect();
        match elf::read(path) {
            Ok(elf::Image::Native(native)) if self.is_build(native.build_id.as_deref()) => {
                sources.extend([Source::Debug(path.to_owned()), Source::Table(path.to_owned())]);
            }
            Ok(_) if sources.is_empty() => return Err(Unusable::Changed),
            Err(_) if sources.is_empty() => return Err(Unusable::Missing),
            // The debug file has the right build-id, whatever became of the module.
            _ => {}
        }
        Ok(sources)
    }

    /// Whether a file with this build-id is the one that was recorded. One without cannot be told apart.
    fn is_build(&self, build_id: Option<&[u8]>) -> bool {
        self.build_id.is_empty() || build_id == Some(&self.build_id)
    }

    /// Debug files below `.build-id`, named after the id.
    fn debug_files<'a>(&'a self, directories: &'a [&Path]) -> impl Iterator<Item = PathBuf> + 'a {
        let hex: String = self.build_id.iter().map(|b| format!("{b:02x}")).collect();
        let name = hex.split_at_checked(2).map(|(first, rest)| format!(".build-id/{first}/{rest}.debug"));
        let files = directories.iter().filter_map(move |d| Some(d.join(name.as_ref()?)));
        files.filter(|file| elf::build_id(file).as_deref() == Some(&self.build_id))
    }
}
