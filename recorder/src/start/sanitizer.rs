//! Programs with a sanitizer, whose own `malloc` is the point of them: memscope steps aside.
//!
//! AddressSanitizer's runtime refuses to start when another library comes before it, as a preloaded one always does; the
//! library therefore answers its question for options (`__asan_default_options`, in `preload/`) with
//! "never mind".

use super::{environment, listing, say};
use crate::symbols;
use core::ffi::CStr;

/// What each runtime defines, and what it is called.
const RUNTIMES: [(&CStr, &str); 5] = [
    (c"__asan_init", "AddressSanitizer"),
    (c"__tsan_init", "ThreadSanitizer"),
    (c"__msan_init", "MemorySanitizer"),
    (c"__hwasan_init", "HWAddressSanitizer"),
    (c"__lsan_init", "LeakSanitizer"),
];

/// The sanitizer that is part of the program, if any.
pub fn present() -> Option<&'static str> {
    RUNTIMES.iter().find(|(symbol, _)| symbols::first(symbol).is_some()).map(|(_, name)| *name)
}

/// Lists the program in the recording of the one that has started it.
pub fn list(name: &str) {
    listing::list_this(&format!("it has {name} in it, which brings its own allocator"));
}

/// Says why nothing is recorded.
pub fn say_so(name: &str) {
    environment::name_nothing();
    say(&format!(
        "not recording: the program has {name} in it, which brings its own allocator: record a build without it"
    ));
}
