//! The dynamic loader: where it lies, and its lock-free look-up of modules.
//!
//! `_dl_find_object` (glibc 2.35) tells the module of an address without a lock, from any context. It is found by
//! reading symbol tables in memory, the loader's for its list of modules, then that of the C library: `dlsym` would
//! take the loader's lock, and allocate where the symbol is missing.

use super::elf::{self, Dynamic, Image};
use crate::hot::HOT;
use crate::sys::process;
use core::sync::atomic::{AtomicUsize, Ordering};

const ABSENT: usize = 1;
const LARGEST: usize = 64 << 20;

/// Address of `_dl_find_object`; 0 before [`start`], [`ABSENT`] on an older C library.
static FIND_OBJECT: AtomicUsize = AtomicUsize::new(0);
/// Address of the loader's `_r_debug`, once that was asked for.
static DEBUG: AtomicUsize = AtomicUsize::new(0);

/// What the loader says about the module of an address (`struct dl_find_object`).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Object {
    flags: u64,
    /// First mapped address.
    pub start: usize,
    /// First address behind it.
    pub end: usize,
    /// `struct link_map`.
    pub link_map: usize,
    /// `.eh_frame_hdr`, 0 where there is none.
    pub eh_frame_hdr: usize,
    reserved: [u64; 7],
}

/// The public start of glibc's `struct link_map`.
#[repr(C)]
#[derive(Debug)]
pub struct LinkMap {
    /// Difference between addresses in memory and in the file.
    pub bias: usize,
    /// Path as a C string; empty for the program.
    pub name: *const core::ffi::c_char,
    /// Address of the dynamic section.
    pub dynamic: usize,
    /// The next module in the order in which symbols are searched, or null.
    pub next: *const Self,
}

/// The public start of `struct r_debug`.
#[repr(C)]
struct Debug {
    version: i32,
    first: *const LinkMap,
}

/// Finds the loader. Cheap to call again.
#[cold]
pub fn start() {
    if FIND_OBJECT.load(Ordering::Acquire) != 0 {
        return;
    }
    let mut find = ABSENT;
    if let Some(image) = image() {
        let code = image
            .headers()
            .iter()
            .find(|header| header.kind == elf::PT_LOAD && header.flags & elf::PF_X != 0);
        if let Some(code) = code {
            HOT.loader_start.store(image.bias.wrapping_add(code.address), Ordering::Relaxed);
            HOT.loader_length.store(code.memory_size, Ordering::Relaxed);
        }
        find = c_library(&image).and_then(|library| library.symbol(c"_dl_find_object")).unwrap_or(ABSENT);
        #[cfg(test)]
        if std::env::var_os(tests::WITHOUT).is_some() {
            find = ABSENT;
        }
    }
    FIND_OBJECT.store(find, Ordering::Release);
}

/// True for an address in the loader's code.
#[inline(always)]
#[must_use]
pub fn contains(pc: usize) -> bool {
    pc.wrapping_sub(HOT.loader_start.load(Ordering::Relaxed)) < HOT.loader_length.load(Ordering::Relaxed)
}

/// True where the C library has `_dl_find_object`.
#[must_use]
pub fn can_find_objects() -> bool {
    start();
    FIND_OBJECT.load(Ordering::Relaxed) != ABSENT
}

/// Asks the loader for the module of an address.
#[must_use]
pub fn find_object(address: usize) -> Option<Object> {
    if !can_find_objects() {
        return None;
    }
    let find = FIND_OBJECT.load(Ordering::Relaxed);
    // SAFETY: the address of `_dl_find_object`, whose signature this is; it is async-signal-safe.
    let find: extern "C" fn(usize, *mut Object) -> i32 = unsafe { core::mem::transmute(find) };
    let mut object = Object::default();
    (find(address, &raw mut object) == 0).then_some(object)
}

/// The head of the loader's list of modules: the program.
#[must_use]
pub fn first_module() -> Option<*const LinkMap> {
    let mut debug = DEBUG.load(Ordering::Relaxed);
    if debug == 0 {
        debug = image()?.dynamic()?.symbol(c"_r_debug")?;
        DEBUG.store(debug, Ordering::Relaxed);
    }
    // SAFETY: the loader's own structure.
    Some(unsafe { (*(debug as *const Debug)).first })
}

/// The C library, from the loader's list of modules.
fn c_library(loader: &Image) -> Option<Dynamic> {
    let debug = loader.dynamic()?.symbol(c"_r_debug")? as *const Debug;
    // SAFETY: the loader's list. This is the first call of `malloc` or the constructor, so nothing is unloaded.
    unsafe {
        let mut at = (*debug).first;
        while !at.is_null() {
            let dynamic = Dynamic::at((*at).dynamic, (*at).bias);
            if dynamic.soname() == Some(c"libc.so.6") {
                return Some(dynamic);
            }
            at = (*at).next;
        }
    }
    None
}

fn image() -> Option<Image> {
    // SAFETY: reads the auxiliary vector that the kernel gave to this process.
    let base = unsafe { libc::getauxval(libc::AT_BASE) } as usize;
    let base = if base == 0 { started_directly()? } else { base };
    // SAFETY: the loader is mapped there as long as the process lives; its extent is read from its headers.
    let short = unsafe { Image::at(base, base + LARGEST) }?;
    // SAFETY: the same image with its true end.
    unsafe { Image::at(base, short.loaded_end()) }
}

/// Where the loader was itself the command (`ld.so ./program`), it has no base; then the kernel's view of "the
/// program" is the loader, and its program headers lie behind its ELF header.
fn started_directly() -> Option<usize> {
    let mut bytes = [0; 512];
    let length = process::read_file(c"/proc/self/auxv", &mut bytes).ok()?;
    let word = |at: usize| Some(usize::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let entry = (0..length / 16).find(|i| word(i * 16) == Some(libc::AT_PHDR as usize))?;
    Some(word(entry * 16 + 8)? & !4095)
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::ffi::CStr;

    /// In the environment of a run of the tests that pretends to have an older C library.
    pub const WITHOUT: &str = "MEMSCOPE_TEST_WITHOUT_FIND_OBJECT";

    /// All tests of stacks again, as on a C library before 2.35.
    #[test]
    fn older_c_libraries_will_do() {
        if std::env::var_os(WITHOUT).is_some() {
            assert!(!can_find_objects());
            return;
        }
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["program::stack::tests", "older_c_libraries"])
            .env(WITHOUT, "1")
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }

    #[test]
    fn loader_is_found() {
        start();
        assert!(can_find_objects());
        let here = loader_is_found as *const () as usize;
        let object = find_object(here).expect("this function's module");
        assert!((object.start..object.end).contains(&here));
        assert_eq!(find_object(16), None);
        assert!(!contains(here));
        let code = HOT.loader_start.load(Ordering::Relaxed);
        assert!(contains(code) && !contains(code - 1));
        // SAFETY: the loader's path is a C string.
        let name = unsafe { CStr::from_ptr((*(find_object(code).unwrap().link_map as *const LinkMap)).name) };
        assert!(name.to_str().unwrap().contains("ld-linux"));
    }
}
