//! The program's environment and its exit handlers.

use super::end;
use super::settings::{Settings, strings};
use crate::program::fork;
use core::ffi::{c_char, c_int, c_void};
use core::ptr::null_mut;

unsafe extern "C" {
    static mut environ: *mut *mut c_char;
    fn on_exit(function: extern "C" fn(c_int, *mut c_void), argument: *mut c_void) -> c_int;
    fn __cxa_at_quick_exit(function: extern "C" fn(), dso: *mut c_void) -> c_int;
    fn __register_atfork(
        before: extern "C" fn(),
        parent: extern "C" fn(),
        child: extern "C" fn(),
        dso: *mut c_void,
    ) -> c_int;
}

/// The settings that the environment holds; what it leaves open is as the library's path says.
pub fn settings(by_path: Option<&[u8]>) -> Settings {
    let by_path = by_path.unwrap_or_default().split(|&byte| byte == 0);
    // SAFETY: in the constructor no other thread changes the environment yet; the array ends with null.
    Settings::read(by_path.chain(unsafe { strings(environ.cast_const().cast()) }))
}

/// Whether the environment says where to record.
pub fn names_directory() -> bool {
    // SAFETY: as above.
    unsafe { strings(environ.cast_const().cast()) }.any(|entry| entry.starts_with(b"MEMSCOPE_OUTPUT="))
}

/// Puts the directory into the environment, so that children record into the same one and are known to belong
/// there. The array and the strings are ours: `setenv` would take them from the program's heap.
pub fn name_directory(directory: &[u8]) {
    replace(&[(b"MEMSCOPE_OUTPUT=", directory), (b"MEMSCOPE_RECORDING=", directory)]);
}

/// Puts the working directory into it, which a later image of this process may have left.
pub fn name_start(directory: &[u8]) {
    replace(&[(b"MEMSCOPE_START=", directory)]);
}

/// Tells children that nothing is recorded here, so that the reason is said once.
pub fn name_nothing() {
    replace(&[(b"MEMSCOPE_RECORDING=", NOTHING)]);
}

/// The value of `MEMSCOPE_RECORDING` below a process that could not record.
pub const NOTHING: &[u8] = b"none";

fn replace(ours: &[(&[u8], &[u8])]) {
    let mut pointers: Vec<*mut c_char> = Vec::new();
    // SAFETY: as in `settings`; the old array's strings are kept, the new array ends with null and stays for good.
    unsafe {
        let mut at = environ;
        while !at.is_null() && !(*at).is_null() {
            let text = core::ffi::CStr::from_ptr(*at).to_bytes();
            if !ours.iter().any(|(name, _)| text.starts_with(name)) {
                pointers.push(*at);
            }
            at = at.add(1);
        }
        for (name, value) in ours {
            let entry = [*name, *value, b"\0"].concat();
            pointers.push(Box::leak(entry.into_boxed_slice()).as_mut_ptr().cast());
        }
        pointers.push(null_mut());
        environ = Box::leak(pointers.into_boxed_slice()).as_mut_ptr();
    }
}

/// Registers for forks.
pub fn watch_forks() {
    // SAFETY: the functions stay loaded; no library's unloading takes them away.
    unsafe { __register_atfork(fork::before, fork::after, fork::child, null_mut()) };
}

/// Registers for the end of the process. In the constructor, before the loader registers the libraries'
/// destructors: handlers run in reverse order, so ours comes last.
pub fn watch_exit() {
    // SAFETY: the functions stay loaded; no argument is used; no library's unloading runs them.
    unsafe {
        on_exit(end::at_exit, null_mut());
        __cxa_at_quick_exit(end::at_quick_exit, null_mut());
    }
}
