//! Builds `libmemscope.so` and tells `src/embed.rs` where it lies, so that `memscope-cli` carries it.
//!
//! The library is a package of the same workspace, built by a cargo of its own: an ordinary
//! dependency could not give a `cdylib`, and would build it with this build's profile. The inner
//! cargo has a target directory of its own (`<target>/nested`), since two that share one wait for each
//! other forever; all profiles of the outer build share it, so that it is built once.
//!
//! `MEMSCOPE_PRELOAD_LIBRARY=FILE` embeds a library that is there already, for packagers who build it
//! apart.

use std::collections::hash_map::DefaultHasher;
use std::env;
use std::error::Error;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the inner cargo must not see: settings of the outer build that would change what it makes.
const CLEARED: &[&str] = &[
    "CARGO_ENCODED_RUSTFLAGS",
    "RUSTFLAGS",
    "RUSTC_WRAPPER",
    "RUSTC_WORKSPACE_WRAPPER",
    "CARGO_TARGET_DIR",
    "CARGO_BUILD_TARGET_DIR",
    "CARGO_BUILD_BUILD_DIR",
    "CARGO_BUILD_TARGET",
    "LD_PRELOAD",
];

/// The same, by how the names begin.
const CLEARED_PREFIXES: &[&str] = &["CARGO_PROFILE_", "CARGO_FEATURE_", "CARGO_CFG_"];

fn main() {
    if let Err(error) = run() {
        println!("cargo::error=cannot build libmemscope.so: {error}");
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-env-changed=MEMSCOPE_PRELOAD_LIBRARY");
    let library = match env::var_os("MEMSCOPE_PRELOAD_LIBRARY") {
        Some(ready) => PathBuf::from(ready),
        None => build_library()?,
    };
    let library = library.canonicalize().map_err(|e| format!("{}: {e}", library.display()))?;
    println!("cargo::rerun-if-changed={}", library.display());
    println!("cargo::rustc-env=MEMSCOPE_EMBEDDED_LIBRARY={}", library.display());
    println!("cargo::rustc-env=MEMSCOPE_EMBEDDED_HASH={:016x}", content_hash(&library)?);
    Ok(())
}

/// Builds the package with cargo and returns the path of the library.
fn build_library() -> Result<PathBuf, Box<dyn Error>> {
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or("no CARGO_MANIFEST_DIR")?);
    let workspace = manifest.parent().ok_or("the package has no workspace around it")?;
    for source in [
        "Cargo.toml",
        "Cargo.lock",
        "preload/Cargo.toml",
        "preload/src",
        "recorder/Cargo.toml",
        "recorder/src",
        "shared/Cargo.toml",
        "shared/src",
    ] {
        println!("cargo::rerun-if-changed={}", workspace.join(source).display());
    }

    let target = target_directory()?.join("nested");
    let mut cargo = Command::new(env::var_os("CARGO").ok_or("no CARGO")?);
    cargo
        .current_dir(workspace)
        .args(["build", "--release", "--locked", "-p", "memscope-preload", "--target-dir"])
        .arg(&target);
    for name in CLEARED {
        cargo.env_remove(name);
    }
    for (name, _) in env::vars_os() {
        let cleared = name.to_str().is_some_and(|n| CLEARED_PREFIXES.iter().any(|p| n.starts_with(p)));
        if cleared {
            cargo.env_remove(name);
        }
    }

    let output = cargo.output()?;
    if !output.status.success() {
        return Err(format!("{}\n{}", output.status, String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(target.join("release/libmemscope.so"))
}

/// The outer build's target directory: `OUT_DIR` is `<target>/[<triple>/]<profile>/build/.../out`.
fn target_directory() -> Result<PathBuf, Box<dyn Error>> {
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("no OUT_DIR")?);
    let build = out
        .ancestors()
        .find(|a| a.file_name().is_some_and(|n| n == "build"))
        .ok_or_else(|| format!("{} lies in no build directory", out.display()))?;
    let target = build.parent().and_then(Path::parent);
    Ok(target.ok_or_else(|| format!("{} lies too high", out.display()))?.to_path_buf())
}

/// Names the library's content: copies of different versions get different names.
fn content_hash(library: &Path) -> Result<u64, Box<dyn Error>> {
    let mut hasher = DefaultHasher::new();
    fs::read(library).map_err(|e| format!("{}: {e}", library.display()))?.hash(&mut hasher);
    Ok(hasher.finish())
}
