//! Where the built artifacts and the tests' own folders are.

use std::env;
use std::path::{Path, PathBuf};

/// The command line: `MEMSCOPE_CLI_BIN`, or `memscope-cli` of the release build beside the test binary.
///
/// # Panics
/// When it is not there, with what to run.
#[must_use]
pub fn cli() -> PathBuf {
    artifact("MEMSCOPE_CLI_BIN", "memscope-cli")
}

/// The library: `MEMSCOPE_LIB`, or `libmemscope.so` of the release build beside the test binary.
///
/// # Panics
/// When it is not there, with what to run.
#[must_use]
pub fn library() -> PathBuf {
    artifact("MEMSCOPE_LIB", "libmemscope.so")
}

fn artifact(variable: &str, name: &str) -> PathBuf {
    let path = env::var_os(variable).map_or_else(|| target_dir().join("release").join(name), PathBuf::from);
    assert!(
        path.exists(),
        "{} is not there: run `cargo build --release` first, or set {variable}",
        path.display()
    );
    path.canonicalize().expect("a path that exists")
}

/// The folder of Cargo's output that the test binary lies in.
#[must_use]
pub fn target_dir() -> PathBuf {
    let exe = env::current_exe().expect("the test's own path");
    // target/PROFILE/deps/e2e-HASH
    exe.ancestors().nth(3).expect("a test binary in target/PROFILE/deps").to_path_buf()
}

/// The folder that holds the compiled test programs; made where missing.
///
/// # Panics
/// When it cannot be made.
#[must_use]
pub fn programs_dir() -> PathBuf {
    let dir = target_dir().join("e2e-programs");
    std::fs::create_dir_all(&dir).expect("a folder for compiled programs");
    dir
}

/// The `tests/` folder of the sources.
#[must_use]
pub fn source_dir() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The repository's root.
///
/// # Panics
/// Never: `tests/` has a parent.
#[must_use]
pub fn root_dir() -> &'static Path {
    source_dir().parent().expect("tests/ lies in the repository")
}
