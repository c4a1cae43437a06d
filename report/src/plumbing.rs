//! Which frame of a stack tells a reader where an allocation comes from.
//!
//! The frame that called `malloc` is rarely the answer: it lies in `operator new`, in a growing `Vec`,
//! in `strdup`. **The rule:** the most telling frame is the first one, seen from the allocation, that
//! is no *plumbing*; where all are, it is the first. Plumbing is a frame
//!
//! * in the C or C++ runtime, the loader, the vdso or an allocator's library ([`RUNTIME_MODULES`]), or
//! * of a function of the standard libraries, in a namespace of [`NAMESPACES`], the C++ return type and
//!   parameters left aside. Of `<Type as Trait>::f` the type counts; where it has no path (`T`, `[u8]`,
//!   `&str`), the trait. Or
//! * whose source is one of the standard libraries' ([`SOURCES`]): debug information names inlined functions without their
//!   namespace. Or
//! * of an allocation wrapper or a start function by one of the names in [`WRAPPERS`].

use memscope_shared::model::{Stack, StackFrame};

use super::format::file_name;
use super::names::opaque_prefix;

/// Beginnings of the file names of runtime libraries.
const RUNTIME_MODULES: [&str; 14] = [
    "libc.so",
    "libc-2.",
    "ld-linux",
    "ld-2.",
    "libpthread",
    "libstdc++.so",
    "libc++.so",
    "libc++abi.so",
    "libgcc_s.so",
    "linux-vdso",
    "[vdso]",
    "libjemalloc",
    "libtcmalloc",
    "libmimalloc",
];

/// Beginnings of the names of standard libraries' functions.
const NAMESPACES: [&str; 9] = [
    "std::",
    "core::",
    "alloc::",
    "hashbrown::",
    "__gnu_cxx::",
    "__cxxabiv1::",
    "__rustc",
    "__rust_",
    "operator new",
];

/// Parts of the paths of standard libraries' sources, first and then: of libstdc++, libc++, and Rust's library as it was compiled
/// and as `rust-src` has it.
const SOURCES: [(&str, &str); 4] = [
    ("/include/", "c++/"),
    ("/libcxx/", "include/"),
    ("/rustc/", "/library/"),
    ("/rustlib/src/", "rust/library/"),
];

/// Functions that allocate for their caller, and those that come before `main`.
const WRAPPERS: [&str; 48] = [
    "malloc",
    "calloc",
    "realloc",
    "reallocarray",
    "strdup",
    "xmalloc",
    "xcalloc",
    "xrealloc",
    "xzalloc",
    "xnmalloc",
    "xnrealloc",
    "xcharalloc",
    "x2realloc",
    "x2nrealloc",
    "xstrdup",
    "xstrndup",
    "xmemdup",
    "g_malloc",
    "g_malloc0",
    "g_malloc_n",
    "g_realloc",
    "g_strdup",
    "g_slice_alloc",
    "g_slice_alloc0",
    "PyMem_Malloc",
    "PyMem_Realloc",
    "PyObject_Malloc",
    "PyObject_Realloc",
    "_PyMem_RawMalloc",
    "_PyMem_RawRealloc",
    "_PyMem_RawCalloc",
    "_PyObject_Malloc",
    "_PyObject_Realloc",
    "CRYPTO_malloc",
    "CRYPTO_zalloc",
    "CRYPTO_calloc",
    "CRYPTO_realloc",
    "CRYPTO_strdup",
    "CRYPTO_memdup",
    "CRYPTO_aligned_alloc",
    "sqlite3MemMalloc",
    "sqlite3MemRealloc",
    "sqlite3Malloc",
    "sqlite3Realloc",
    "__rdl_alloc",
    "__rdl_realloc",
    "PyMem_RawMalloc",
    "_start",
];

/// Position in `stack.frames` of the most telling frame; `None` for a stack without a known frame.
pub fn telling(stack: &Stack, frames: &[StackFrame], plumbing: &[bool]) -> Option<usize> {
    let known = |index: &u32| (*index as usize) < frames.len();
    let tells = |index: &u32| plumbing.get(*index as usize) == Some(&false);
    stack.frames.iter().position(tells).or_else(|| stack.frames.iter().position(known))
}

/// Whether a frame is plumbing, by the rule above.
pub fn is_plumbing(frame: &StackFrame) -> bool {
    frame.module.as_deref().is_some_and(in_runtime)
        || frame.function.as_deref().is_some_and(is_standard)
        || frame.file.as_deref().is_some_and(in_standard_source)
}

fn in_standard_source(file: &str) -> bool {
    SOURCES.iter().any(|(first, then)| file.split_once(first).is_some_and(|(_, rest)| rest.contains(then)))
}

fn in_runtime(module: &str) -> bool {
    let file = file_name(module);
    RUNTIME_MODULES.iter().any(|start| file.starts_with(start))
}

fn is_standard(function: &str) -> bool {
    if let Some((kind, interface)) = qualified_self(function) {
        return if kind.contains("::") { in_namespace(kind) } else { in_namespace(interface) };
    }
    let name = bare(function);
    in_namespace(name) || WRAPPERS.contains(&name)
}

fn in_namespace(path: &str) -> bool {
    let path = path.trim_start_matches(['&', '[', '(', '<', '*']);
    let path = ["mut ", "const ", "dyn "].iter().find_map(|word| path.strip_prefix(word)).unwrap_or(path);
    NAMESPACES.iter().any(|start| path.starts_with(start))
}

/// `Type` and `Trait` of `<Type as Trait>::function`.
fn qualified_self(function: &str) -> Option<(&str, &str)> {
    let inner = function.strip_prefix('<')?;
    let mut depth = 0_usize;
    for (at, c) in inner.char_indices() {
        match c {
            '<' => depth += 1,
            '>' if inner[..at].ends_with('-') => {}
            '>' => depth = depth.checked_sub(1)?,
            ' ' if depth == 0 && inner[at..].starts_with(" as ") => {
                return Some((&inner[..at], &inner[at + 4..]));
            }
            _ => {}
        }
    }
    None
}

/// A C++ function's qualified name, without return type and parameters.
fn bare(function: &str) -> &str {
    let mut depth = 0_usize;
    let mut start = 0;
    let mut at = 0;
    while let Some(c) = function[at..].chars().next() {
        let opaque = opaque_prefix(&function[at..]);
        if opaque > 0 {
            at += opaque;
            continue;
        }
        match c {
            '<' => depth += 1,
            '>' => depth = depth.saturating_sub(1),
            '(' if depth == 0 => break,
            ' ' if depth == 0 && !function[..at].ends_with("operator") => start = at + 1,
            _ => {}
        }
        at += c.len_utf8();
    }
    &function[start.min(at)..at]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plumbing(function: &str) -> bool {
        is_plumbing(&StackFrame { function: Some(function.to_owned()), ..StackFrame::default() })
    }

    #[test]
    fn standard_libraries_are_plumbing() {
        for name in [
            "operator new(unsigned long)",
            "operator new[](unsigned long)",
            "std::vector<app::Thing>::push_back(app::Thing const&)",
            "void std::vector<int>::_M_realloc_insert<int const&>(__gnu_cxx::__normal_iterator<int*>, int)",
            "alloc::raw_vec::RawVec<T,A>::grow_one",
            "<alloc::vec::Vec<T> as core::clone::Clone>::clone",
            "<T as alloc::string::ToString>::to_string",
            "<[u8] as alloc::slice::hack::ConvertVec>::to_vec",
            "<&mut core::str::Chars as core::iter::Iterator>::next",
            "hashbrown::raw::RawTable<T>::reserve_rehash",
            "std::rt::lang_start::{{closure}}",
            "__rust_alloc",
            "xmalloc",
            "_start",
        ] {
            assert!(plumbing(name), "{name}");
        }
    }

    #[test]
    fn the_program_is_not() {
        for name in [
            "main",
            "app::std::thing",
            "stdio_open",
            "app::load(std::string const&)",
            "std_copy<std::string>(std::string)",
            "std::string app::name(int)",
            "<app::Config as core::clone::Clone>::clone",
            "<app::main::{closure#0} as core::ops::FnOnce<()>>::call_once",
            "(anonymous namespace)::build(std::vector<int>)",
            "app::Set::operator<(app::Set const&)",
            "app::Name::operator std::string() const",
            "",
        ] {
            assert!(!plumbing(name), "{name}");
        }
    }

    #[test]
    fn runtime_libraries_are_plumbing_by_file_name() {
        let inside = |module: &str| {
            is_plumbing(&StackFrame { module: Some(module.to_owned()), ..StackFrame::default() })
        };
        assert!(inside("/lib/x86_64-linux-gnu/libc.so.6"));
        assert!(inside("/lib64/ld-linux-x86-64.so.2"));
        assert!(inside("libstdc++.so.6.0.30"));
        assert!(!inside("/home/libc.so/app"));
        assert!(!inside("/usr/lib/libcrypto.so.3"));
    }

    #[test]
    fn standard_sources_are_plumbing_whatever_the_function_is_called() {
        let from = |file: &str| {
            let function = Some("_M_realloc_insert<main()::<lambda()> >".to_owned());
            is_plumbing(&StackFrame { function, file: Some(file.to_owned()), ..StackFrame::default() })
        };
        assert!(from("/usr/include/c++/12/bits/vector.tcc"));
        assert!(from("/usr/lib/llvm-14/include/c++/v1/vector"));
        assert!(from("/rustc/59807616e1fa2540724bfbac14d7976d7e4a3860/library/alloc/src/slice.rs"));
        assert!(from(
            "/home/me/.rustup/toolchains/stable/lib/rustlib/src/rust/library/core/src/ops/function.rs"
        ));
        assert!(!from("/home/me/c++/include/vector.h"));
        assert!(!from("/rustc/0123/compiler/rustc_middle/src/ty.rs"));
        assert!(!from("/home/me/library/rustc/vector.rs"));
    }

    #[test]
    fn the_first_frame_stands_in_where_all_are_plumbing() {
        let frames = vec![StackFrame::default(); 3];
        let stack = Stack { frames: vec![9, 2, 0, 1], ..Stack::default() };
        assert_eq!(telling(&stack, &frames, &[true, false, true]), Some(3));
        assert_eq!(telling(&stack, &frames, &[true, true, true]), Some(1));
        assert_eq!(telling(&Stack::default(), &frames, &[true; 3]), None);
    }
}
