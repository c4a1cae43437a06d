//! What the standard library has no function for: the one place with calls of the C library.
//!
//! On systems other than Linux most of it answers that it does not know.
#![allow(unsafe_code)]

use std::ffi::CStr;

#[cfg(unix)]
mod signals;
#[cfg(unix)]
pub use signals::watch_signals;

/// True on the process's first thread.
pub fn is_main_thread() -> bool {
    #[cfg(target_os = "linux")]
    // SAFETY: neither call has any condition.
    return unsafe { libc::gettid() == libc::getpid() };
    #[cfg(not(target_os = "linux"))]
    return std::thread::current().name() == Some("main");
}

/// The calling thread's name. Asks the system, because `std::thread::current` must not be used in
/// destructors of thread-locals.
pub fn thread_name() -> Option<String> {
    #[cfg(target_os = "linux")]
    {
        let mut name = [0_u8; 16];
        // SAFETY: the call writes at most 16 bytes, the last of them 0.
        let failed = unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
        let text = CStr::from_bytes_until_nul(&name).ok().filter(|_| failed == 0)?;
        Some(text.to_string_lossy().into_owned()).filter(|name| !name.is_empty())
    }
    #[cfg(not(target_os = "linux"))]
    None
}

/// The parent's process id.
pub fn parent_pid() -> u32 {
    #[cfg(unix)]
    return std::os::unix::process::parent_id();
    #[cfg(not(unix))]
    return 0;
}

/// Writes to standard error past the standard library's lock: at the end of a process another thread may hold that for ever.
pub fn write_stderr(text: &[u8]) {
    let mut rest = text;
    while !rest.is_empty() {
        // SAFETY: the bytes are readable.
        let wrote = unsafe { libc::write(2, rest.as_ptr().cast(), rest.len() as _) };
        match usize::try_from(wrote) {
            Ok(wrote) if wrote > 0 => rest = rest.get(wrote..).unwrap_or_default(),
            _ if std::io::Error::last_os_error().kind() == std::io::ErrorKind::Interrupted => {}
            _ => return,
        }
    }
}

/// The address of a symbol of the program or a library that it has loaded; `None` where there is none.
pub fn symbol(name: &CStr) -> Option<usize> {
    #[cfg(unix)]
    {
        // SAFETY: the name ends with a NUL.
        let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
        (!found.is_null()).then_some(found as usize)
    }
    #[cfg(not(unix))]
    {
        let _ = name;
        None
    }
}

/// What is to be called at the end; gets the exit status where it is known.
static AT_EXIT: std::sync::OnceLock<fn(Option<i32>)> = std::sync::OnceLock::new();

/// Has `function` called when the process ends by a return from `main`, `exit` or `quick_exit`. The first call counts.
pub fn at_exit(function: fn(Option<i32>)) {
    if AT_EXIT.set(function).is_err() {
        return;
    }
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        use std::ffi::c_int;
        unsafe extern "C" {
            fn on_exit(
                function: extern "C" fn(c_int, *mut libc::c_void),
                argument: *mut libc::c_void,
            ) -> c_int;
            fn at_quick_exit(function: extern "C" fn()) -> c_int;
        }
        extern "C" fn ended(status: c_int, _: *mut libc::c_void) {
            call_at_exit(Some(status));
        }
        extern "C" fn ended_quickly() {
            call_at_exit(None);
        }
        // SAFETY: both functions stay where they are; no argument is used.
        unsafe {
            on_exit(ended, std::ptr::null_mut());
            at_quick_exit(ended_quickly);
        }
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    {
        extern "C" fn ended() {
            call_at_exit(None);
        }
        // SAFETY: the function stays where it is.
        unsafe { libc::atexit(ended) };
    }
}

/// A panic must not leave a function that C calls.
fn call_at_exit(status: Option<i32>) {
    if let Some(function) = AT_EXIT.get() {
        let _said_by_the_panic_hook = std::panic::catch_unwind(|| function(status));
    }
}
