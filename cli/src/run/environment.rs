//! The environment of the program: ours, as it is, with the recorder's variables.

use std::ffi::{CStr, CString, OsStr, c_char};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::args::RunArgs;
use crate::embed;

unsafe extern "C" {
    static environ: *const *const c_char;
}

/// Variables that are not handed on: ours to set, or the work of `run` itself.
const TAKEN: &[&[u8]] =
    &[b"LD_PRELOAD", b"MEMSCOPE_OUTPUT", b"MEMSCOPE_RECORDING", b"MEMSCOPE_START", b"MEMSCOPE_AUTO_EXPORT"];

/// The environment, entry by entry, but for `MEMSCOPE_OUTPUT`: that waits for the program's id.
pub fn for_program(args: &RunArgs, library: &Path) -> Vec<CString> {
    build(own(), args, library)
}

/// The entries that say where the recording goes, and that whoever has them belongs to it.
pub fn output(directory: &[u8]) -> Option<[CString; 2]> {
    let entry = |name: &[u8]| CString::new([name, directory].concat()).ok();
    Some([entry(b"MEMSCOPE_OUTPUT=")?, entry(b"MEMSCOPE_RECORDING=")?])
}

fn build(own: Vec<CString>, args: &RunArgs, library: &Path) -> Vec<CString> {
    let mut preload = library.as_os_str().as_bytes().to_vec();
    for other in preloaded(&own) {
        preload.push(b':');
        preload.extend(other);
    }
    let mut all = own;
    // An entry without `=` is odd, but the program is to see it.
    all.retain(|entry| !TAKEN.contains(&name(entry)));
    set(&mut all, "LD_PRELOAD", &preload);
    for (variable, given, value, default) in [
        ("MEMSCOPE_FOLLOW", args.no_follow, "0", "1"),
        ("MEMSCOPE_THREAD", args.no_thread, "0", "1"),
        ("MEMSCOPE_QUIET", args.quiet, "1", "0"),
    ] {
        choose(&mut all, variable, given.then_some(value), default);
    }
    // For what a program exports by itself; our own exports need neither.
    choose(&mut all, "MEMSCOPE_EXPORT_FORMAT", None, args.export.format().unwrap_or("json"));
    choose(&mut all, "RUST_BACKTRACE", None, "1");
    all
}

/// Sets a variable to what an option says, or, where the user has not set it, to the default.
fn choose(all: &mut Vec<CString>, variable: &str, option: Option<&str>, default: &str) {
    if option.is_some() || !all.iter().any(|entry| name(entry) == variable.as_bytes()) {
        set(all, variable, option.unwrap_or(default).as_bytes());
    }
}

/// What is preloaded already, in order, without another copy of ours.
fn preloaded(own: &[CString]) -> Vec<Vec<u8>> {
    // Of several entries the loader takes the last.
    let Some(list) = own.iter().rev().find(|entry| name(entry) == b"LD_PRELOAD") else { return Vec::new() };
    let value = &list.to_bytes()[b"LD_PRELOAD=".len()..];
    let entries = value.split(|b| matches!(b, b':' | b' ')).filter(|entry| !entry.is_empty());
    let ours =
        |entry: &&[u8]| Path::new(OsStr::from_bytes(entry)).file_name() == Some(OsStr::new(embed::FILE_NAME));
    entries.filter(|entry| !ours(entry)).map(<[u8]>::to_vec).collect()
}

fn set(all: &mut Vec<CString>, variable: &str, value: &[u8]) {
    all.retain(|entry| name(entry) != variable.as_bytes());
    let entry = [variable.as_bytes(), b"=", value].concat();
    // No value of ours can hold a NUL: they are literals, paths and what the environment held.
    all.extend(CString::new(entry));
}

/// The name of a variable; empty for an entry without `=`.
fn name(entry: &CString) -> &[u8] {
    let entry = entry.to_bytes();
    entry.iter().position(|b| *b == b'=').map_or(&[], |end| &entry[..end])
}

/// Our own environment. `std::env` leaves out what is not of the form `name=value`.
fn own() -> Vec<CString> {
    let mut all = Vec::new();
    // SAFETY: libc keeps `environ` null or pointing at pointers to strings, the last of them null; nothing
    // in this process changes the environment.
    unsafe {
        let mut entry = environ;
        while !entry.is_null() && !(*entry).is_null() {
            all.push(CStr::from_ptr(*entry).to_owned());
            entry = entry.add(1);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use std::ffi::{CString, OsString};
    use std::path::Path;

    use super::{build, own};
    use crate::args::{Command, Parsed, RunArgs, parse};

    fn args(line: &str) -> RunArgs {
        match parse(format!("memscope-cli run {line} x").split_whitespace().map(OsString::from)) {
            Ok(Parsed::Command(Command::Run(args))) => args,
            other => panic!("{other:?}"),
        }
    }

    fn built(own: &[&str], options: &str) -> Vec<String> {
        let own = own.iter().map(|e| CString::new(*e).expect("no NUL")).collect();
        let all = build(own, &args(options), Path::new("/c/libmemscope.so"));
        all.into_iter().map(|e| e.into_string().expect("text")).collect()
    }

    #[test]
    fn everything_is_handed_on() {
        let all = built(&["A=1", "EMPTY=", "odd", "B=x=y"], "");
        assert_eq!(all[..4], ["A=1", "EMPTY=", "odd", "B=x=y"]);
        let ours =
            ["FOLLOW=1", "THREAD=1", "QUIET=0", "EXPORT_FORMAT=json"].map(|ours| format!("MEMSCOPE_{ours}"));
        assert_eq!(all[4], "LD_PRELOAD=/c/libmemscope.so");
        assert_eq!(all[5..9], ours);
        assert_eq!(all[9..], ["RUST_BACKTRACE=1"]);
    }

    #[test]
    fn other_preloaded_libraries_keep_their_order_behind_ours() {
        let all = built(&["LD_PRELOAD=/a.so /old/libmemscope.so::b.so"], "");
        assert!(all.contains(&"LD_PRELOAD=/c/libmemscope.so:/a.so:b.so".to_owned()), "{all:?}");
        assert_eq!(all.iter().filter(|e| e.starts_with("LD_PRELOAD=")).count(), 1);
    }

    #[test]
    fn a_backtrace_setting_of_the_users_stays() {
        assert!(built(&["RUST_BACKTRACE=0"], "").contains(&"RUST_BACKTRACE=0".to_owned()));
        assert!(!built(&["RUST_BACKTRACE=0"], "").contains(&"RUST_BACKTRACE=1".to_owned()));
    }

    #[test]
    fn the_options_become_variables() {
        let all = built(&["MEMSCOPE_FOLLOW=1"], "--no-follow --no-thread --quiet --export both");
        for wanted in ["FOLLOW=0", "THREAD=0", "QUIET=1", "EXPORT_FORMAT=both"] {
            assert!(all.contains(&format!("MEMSCOPE_{wanted}")), "{all:?}");
        }
        assert!(!all.contains(&"MEMSCOPE_FOLLOW=1".to_owned()));
        let all = built(&["MEMSCOPE_FOLLOW=0", "MEMSCOPE_EXPORT_FORMAT=html"], "--export none");
        for wanted in ["FOLLOW=0", "THREAD=1", "EXPORT_FORMAT=html"] {
            assert!(all.contains(&format!("MEMSCOPE_{wanted}")), "{all:?}");
        }
    }

    #[test]
    fn the_export_is_ours_and_so_is_the_directory() {
        let all = built(&["MEMSCOPE_AUTO_EXPORT=1", "MEMSCOPE_OUTPUT=/x", "MEMSCOPE_EXPORT_PATH=/own"], "");
        assert!(
            !all.iter().any(|e| e.starts_with("MEMSCOPE_AUTO_EXPORT") || e.starts_with("MEMSCOPE_OUTPUT"))
        );
        assert!(all.contains(&"MEMSCOPE_EXPORT_PATH=/own".to_owned()));
    }

    #[test]
    fn our_own_environment_is_read_whole() {
        assert_eq!(own().len(), std::env::vars_os().count());
    }
}
