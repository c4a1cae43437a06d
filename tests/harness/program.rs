//! Compiles the small test programs, once for each content and set of flags.

use std::ffi::OsString;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::{fs, process};

use crate::artifacts::{programs_dir, source_dir};

/// Held while compiling: two tests may ask for the same program.
static COMPILING: Mutex<()> = Mutex::new(());

/// Compiles `programs/c/NAME.c` with `-O2 -g` and these flags.
#[must_use]
pub fn c(name: &str, flags: &[&str]) -> PathBuf {
    gnu("gcc", &format!("c/{name}.c"), flags)
}

/// Compiles `programs/cxx/NAME.cpp` with `-O2 -g` and these flags.
#[must_use]
pub fn cxx(name: &str, flags: &[&str]) -> PathBuf {
    gnu("g++", &format!("cxx/{name}.cpp"), flags)
}

/// Compiles `programs/rust/NAME.rs` with optimisation, line tables and these flags.
#[must_use]
pub fn rust(name: &str, flags: &[&str]) -> PathBuf {
    let source = source_dir().join(format!("programs/rust/{name}.rs"));
    let mut words = vec!["--edition=2021", "-Copt-level=2", "-Cdebuginfo=1"];
    words.extend(flags);
    compile("rustc", &source, &words)
}

/// Compiles `programs/c/NAME.c` into a shared library.
#[must_use]
pub fn c_library(name: &str, flags: &[&str]) -> PathBuf {
    let mut words = vec!["-shared", "-fPIC"];
    words.extend(flags);
    c(name, &words)
}

fn gnu(compiler: &str, source: &str, flags: &[&str]) -> PathBuf {
    let source = source_dir().join("programs").join(source);
    // The calls of the test programs are what is tested: the compiler must not take them away, nor
    // object to those that are wrong on purpose.
    let mut words = vec!["-O2", "-g", "-pthread", "-fno-builtin", "-Wall", "-Wextra", "-Werror"];
    words.extend(["-Wno-use-after-free", "-Wno-alloc-size-larger-than"]);
    words.extend(flags);
    compile(compiler, &source, &words)
}

/// Compiles a source of any place; the result is kept under a name made of content and flags.
///
/// # Panics
/// When the compiler fails, with what it said.
#[must_use]
pub fn compile(compiler: &str, source: &Path, flags: &[&str]) -> PathBuf {
    let target =
        programs_dir().join(format!("{}-{:016x}", stem(source), fingerprint(compiler, source, flags)));
    let _one_at_a_time = COMPILING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if target.exists() {
        return target;
    }
    // Under a name of its own until it is whole: another test run may look for it.
    let draft = target.with_extension(format!("draft{}", process::id()));
    let mut command = Command::new(compiler);
    // Libraries stand behind the source, which needs them.
    let (libraries, options): (Vec<&str>, Vec<&str>) = flags.iter().partition(|flag| flag.starts_with("-l"));
    command.args(options).arg("-o").arg(&draft).arg(source).args(libraries);
    let output = command.output().unwrap_or_else(|e| panic!("cannot start {compiler}: {e}"));
    assert!(
        output.status.success(),
        "{compiler} failed on {}\n{}",
        source.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    fs::rename(&draft, &target).expect("the finished program in its place");
    target
}

fn stem(source: &Path) -> String {
    source.file_stem().map_or_else(OsString::new, OsString::from).to_string_lossy().into_owned()
}

/// Content of the source and of the headers beside it, and the flags.
fn fingerprint(compiler: &str, source: &Path, flags: &[&str]) -> u64 {
    let mut hasher = DefaultHasher::new();
    (compiler, flags).hash(&mut hasher);
    fs::read(source).unwrap_or_else(|e| panic!("{}: {e}", source.display())).hash(&mut hasher);
    let headers = source_dir().join("programs/c");
    let mut names: Vec<_> = fs::read_dir(headers)
        .expect("the folder of C programs")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "h"))
        .collect();
    names.sort();
    for name in names {
        fs::read(name).expect("a header").hash(&mut hasher);
    }
    hasher.finish()
}
