//! Allocators that are linked into a program and that `malloc` does not lead to: known by their symbols.
//!
//! Such an allocator takes its memory from the kernel, and the library's hooks never see a call. The recording is exact all
//! the same, of what does pass `malloc`; the reports say that this is not everything.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use memscope_shared::model::StaticAllocator;

use crate::elf;

/// A function of an allocator's, as it is called where the allocator is built in, and what that is called.
const KNOWN: [(&str, &str); 19] = [
    ("je_malloc", "jemalloc"),
    ("je_mallocx", "jemalloc"),
    ("rjem_malloc", "jemalloc"),
    ("_rjem_malloc", "jemalloc"),
    ("_rjem_mallocx", "jemalloc"),
    ("jemalloc_constructor", "jemalloc"),
    ("mi_malloc", "mimalloc"),
    ("mi_malloc_aligned", "mimalloc"),
    ("mi_heap_malloc", "mimalloc"),
    ("tc_malloc", "tcmalloc"),
    ("TCMallocInternalMalloc", "tcmalloc"),
    ("rpmalloc", "rpmalloc"),
    ("sn_malloc", "snmalloc"),
    ("sn_rust_alloc", "snmalloc"),
    ("dlmalloc", "dlmalloc"),
    ("scudo_malloc", "scudo"),
    ("__scudo_default_options", "scudo"),
    ("GC_malloc", "the Boehm collector"),
    ("__asan_init", "AddressSanitizer"),
];

/// The program defines `malloc` itself.
const OWN: &str = "an allocator of its own";

/// What was found in each file so far.
#[derive(Debug, Default)]
pub struct Allocators {
    known: HashMap<(Vec<u8>, bool), Option<&'static str>>,
}

impl Allocators {
    /// The allocators in a process's executable and libraries.
    pub fn of<'a>(&mut self, exe: &[u8], modules: impl Iterator<Item = &'a [u8]>) -> Vec<StaticAllocator> {
        let mut found = Vec::new();
        for path in modules.filter(|path| path.starts_with(b"/")) {
            let key = (path.to_vec(), path == exe);
            let name = self
                .known
                .entry(key)
                .or_insert_with(|| find(Path::new(OsStr::from_bytes(path)), path == exe));
            if let Some(name) = name {
                let module = String::from_utf8_lossy(path).into_owned();
                let allocator = StaticAllocator { name: (*name).to_owned(), module };
                if !found.contains(&allocator) {
                    found.push(allocator);
                }
            }
        }
        found
    }
}

/// The allocator in a file. A library that defines `malloc` for everybody is behind our hooks, and recorded; a
/// program that does so is in front of them.
fn find(path: &Path, is_program: bool) -> Option<&'static str> {
    let (mut name, mut own) = (None, false);
    elf::each_symbol(path, |symbol| {
        if !symbol.defined {
            return;
        }
        own |= symbol.dynamic && symbol.name == "malloc";
        if name.is_none() {
            name = KNOWN.iter().find(|(function, _)| *function == symbol.name).map(|(_, name)| *name);
        }
    });
    match (is_program, own) {
        (false, true) => None,
        (true, true) => name.or(Some(OWN)),
        (_, false) => name,
    }
}

#[cfg(test)]
mod tests {
    use super::Allocators;

    #[test]
    fn ordinary_programs_have_none() {
        let own = std::env::current_exe().expect("our path");
        let own = own.as_os_str().as_encoded_bytes();
        let paths = [own, b"[vdso]".as_slice(), b"/no/such/file"];
        assert!(Allocators::default().of(own, paths.into_iter()).is_empty());
    }
}
