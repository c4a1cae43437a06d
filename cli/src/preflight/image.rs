//! Whether the loader will preload the recorder into an ELF image.

use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{StatVfsMountFlags, getxattr, statvfs};
use rustix::process::{getgid, getuid};
use rustix::thread::no_new_privs;

use crate::elf::{self, Image, Native};
use crate::error::{Error, Result};

/// What a program built with a sanitizer calls first.
const SANITIZERS: [(&str, &str); 4] = [
    ("__asan_init", "AddressSanitizer"),
    ("__tsan_init", "ThreadSanitizer"),
    ("__msan_init", "MemorySanitizer"),
    ("__hwasan_init", "HWAddressSanitizer"),
];

const S_ISUID: u32 = 0o4000;
const S_ISGID: u32 = 0o2000;
const S_IXGRP: u32 = 0o0010;

/// Looks at `file`, the image that is loaded when `program` is run by the name `command`.
pub fn check(file: &Path, program: &Path, command: &OsStr) -> Result<()> {
    let name = name(file, program, command);
    match elf::read(file) {
        Ok(Image::Native(native)) => {
            loads_us(&native, file, &name)?;
            has_no_sanitizer(file, &name)?;
        }
        Ok(Image::OtherMachine(machine)) => {
            return Err(Error::failed(
                name,
                format!("it is built for {machine}; memscope records x86-64 programs"),
            )
            .remedy("run a build for x86-64"));
        }
        // Neither is ours to explain: the kernel says what it thinks of it.
        Ok(Image::Foreign) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(()),
        Err(_) => return Err(Error::cannot_run(name, "it is a damaged ELF file").remedy("build it anew")),
    }
    match fs::metadata(file) {
        Ok(metadata) => keeps_its_rights(file, &metadata, &name),
        Err(_) => Ok(()),
    }
}

/// How to call the image: a script's interpreter is named with its script.
fn name(file: &Path, program: &Path, command: &OsStr) -> String {
    if file == program {
        return command.display().to_string();
    }
    format!("{} (which runs {})", command.display(), file.display())
}

fn loads_us(native: &Native, file: &Path, name: &str) -> Result<()> {
    if !native.loadable {
        return Err(Error::cannot_run(name, "it is an object file or a core dump, not a program"));
    }
    match &native.interpreter {
        Some(loader) if is_glibc_loader(OsStr::from_bytes(loader)) => Ok(()),
        Some(loader) => {
            let loader = OsStr::from_bytes(loader).display();
            let why = format!(
                "its loader {loader} is not that of glibc, so libmemscope.so cannot be loaded into it"
            );
            Err(Error::failed(name, why).remedy("link it with glibc to record it"))
        }
        None if native.dynamic && is_glibc_loader(file.as_os_str()) => Ok(()),
        None => {
            Err(Error::failed(name, "it is statically linked, so libmemscope.so cannot be loaded into it")
                .remedy("link it dynamically to record it"))
        }
    }
}

/// A sanitizer's runtime brings its own `malloc`, and will not start or not work behind another library.
fn has_no_sanitizer(file: &Path, name: &str) -> Result<()> {
    let mut found = None;
    elf::each_symbol(file, |symbol| {
        let runtime = SANITIZERS.iter().find(|(init, _)| *init == symbol.name);
        found = found.or(runtime.map(|(_, name)| *name));
    });
    let Some(sanitizer) = found else { return Ok(()) };
    Err(Error::failed(name, format!("it is built with {sanitizer}, which brings its own allocator"))
        .remedy("record a build without it"))
}

/// Whether a path is that of glibc's loader. It has been called the same since x86-64 exists; before
/// glibc 2.34 the file behind that link was called `ld-2.31.so`.
fn is_glibc_loader(path: &OsStr) -> bool {
    let base = path.as_bytes().rsplit(|b| *b == b'/').next().unwrap_or_default();
    base == b"ld-linux-x86-64.so.2" || base.starts_with(b"ld-2.")
}

/// A program that gains rights by being run is started in "secure mode", in which the loader
/// preloads nothing from outside of the system's directories.
fn keeps_its_rights(file: &Path, metadata: &Metadata, name: &str) -> Result<()> {
    let Some(gain) = gained_rights(file, metadata) else { return Ok(()) };
    if no_new_privs().unwrap_or(false) || on_nosuid_mount(file) {
        return Ok(());
    }
    let why = format!("it is {gain}, and the loader ignores LD_PRELOAD for such programs");
    Err(Error::failed(name, why)
        .remedy("run memscope-cli as the user whose rights it takes, or record a plain copy of it"))
}

fn gained_rights(file: &Path, metadata: &Metadata) -> Option<&'static str> {
    let mode = metadata.mode();
    let setgid = S_ISGID | S_IXGRP;
    if mode & S_ISUID != 0 && metadata.uid() != getuid().as_raw() {
        return Some("set-user-ID");
    }
    if mode & setgid == setgid && metadata.gid() != getgid().as_raw() {
        return Some("set-group-ID");
    }
    (!getuid().is_root() && has_capabilities(file)).then_some("given capabilities by its file")
}

fn has_capabilities(file: &Path) -> bool {
    let mut none: [u8; 0] = [];
    getxattr(file, "security.capability", &mut none[..]).is_ok_and(|length| length > 0)
}

pub(super) fn on_nosuid_mount(file: &Path) -> bool {
    statvfs(file).is_ok_and(|fs| fs.f_flag.contains(StatVfsMountFlags::NOSUID))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::is_glibc_loader;

    #[test]
    fn loaders_of_glibc() {
        for loader in
            ["/lib64/ld-linux-x86-64.so.2", "/gnu/store/x/lib/ld-linux-x86-64.so.2", "/lib/ld-2.31.so"]
        {
            assert!(is_glibc_loader(OsStr::new(loader)), "{loader}");
        }
        for loader in ["/lib/ld-musl-x86_64.so.1", "/libx32/ld-linux-x32.so.2", "/system/bin/linker64", ""] {
            assert!(!is_glibc_loader(OsStr::new(loader)), "{loader}");
        }
    }
}
