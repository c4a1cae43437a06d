//! Readable forms of mangled names, of C++ and of Rust.
//!
//! Only what looks mangled is read as such: a C function may well be called `f`, which is how C++ writes `float`.
//!
//! GCC writes some C++ return types and parameters in a way that demanglers do not all accept: those of `std::make_shared`,
//! with its `enable_if<!is_array<T>::value>`, are the commonest. But the function's own name with its template
//! arguments comes first, and that is what a reader looks for.

use cpp_demangle::{DemangleOptions, Symbol};

/// Names that are longer stay as they are: each end that is tried costs a parse.
const LONGEST: usize = 4096;
/// Most ends that are tried.
const TRIES: usize = 64;

/// The readable form of a mangled name; `None` of another one.
pub fn readable(name: &str) -> Option<String> {
    if !name.starts_with("_Z") && !name.starts_with("_R") {
        return None;
    }
    if let Ok(rust) = rustc_demangle::try_demangle(name) {
        return Some(format!("{rust:#}"));
    }
    let cpp = Symbol::new(name).ok().and_then(|name| name.demangle().ok());
    cpp.map(|name| without_empty_packs(&name)).or_else(|| without_signature(name))
}

/// Name and template arguments of a function whose mangled name as a whole cannot be read.
///
/// Template arguments end in `E`. Up to the last one behind which `vv` ("returns nothing, takes nothing") makes a
/// whole name, the name is taken as it is.
fn without_signature(mangled: &str) -> Option<String> {
    if !mangled.starts_with("_Z") || mangled.len() > LONGEST || !mangled.is_ascii() {
        return None;
    }
    let ends = mangled.match_indices('E').map(|(at, _)| at + 1).rev();
    ends.take(TRIES).find_map(|end| demangled(&format!("{}vv", &mangled[..end])))
}

fn demangled(name: &str) -> Option<String> {
    let options = DemangleOptions::new().no_params().no_return_type();
    let name = Symbol::new(name).ok()?.demangle_with_options(&options).ok()?;
    Some(without_empty_packs(&name))
}

/// Without what an empty pack leaves behind the other template arguments.
fn without_empty_packs(name: &str) -> String {
    name.replace(", >", ">")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_language_has_its_names() {
        for (name, expected) in [
            ("_ZN4shop5ShelfIiE4fillEm", "shop::Shelf<int>::fill(unsigned long)"),
            ("_ZN5depot5depot5store17h0123456789abcdefE", "depot::depot::store"),
            ("_RNvNtCs1234_7mycrate3foo3bar", "mycrate::foo::bar"),
            ("_Z4loadv.cold", "load() [clone .cold]"),
            ("_Z4makeI4NodeJEEvv", "void make<Node>()"),
        ] {
            assert_eq!(readable(name).as_deref(), Some(expected));
        }
        // As C++ would write types.
        for name in ["f", "i", "v", "St", "Pc", "main", "_start", "_Rest", "_Zone", ""] {
            assert_eq!(readable(name), None, "{name}");
        }
    }

    #[test]
    fn what_comes_before_the_part_that_cannot_be_read_is_the_name() {
        let make_shared = "_ZSt11make_sharedI4NodeJEESt10shared_ptrINSt9enable_ifIXntsrSt8is_arrayIT_E5valueES4_E4typeEEDpOT0_";
        assert!(Symbol::new(make_shared).is_err(), "then this module has no use any more");
        assert_eq!(without_signature(make_shared).as_deref(), Some("std::make_shared<Node>"));
        let nested =
            "_ZN3app4makeISt6vectorIiSaIiEEJRKiEEENSt9enable_ifIXntsrSt8is_arrayIT_E5valueES7_E4typeEDpOT0_";
        assert_eq!(
            without_signature(nested).as_deref(),
            Some("app::make<std::vector<int, std::allocator<int> >, int const&>")
        );
    }

    #[test]
    fn other_names_stay() {
        for name in ["main", "", "_Z", "_ZE", "_ZEEEEEE", "_Znonsense", "EEE", "_ZN3a\u{e4}E"] {
            assert_eq!(without_signature(name), None, "{name}");
        }
        assert_eq!(without_signature(&format!("_Z{}", "E".repeat(100_000))), None);
    }
}
