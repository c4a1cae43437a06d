//! What becomes of an environment, and what is seen of a program's file.

use super::image::{self, Image};
use super::*;
use std::os::unix::ffi::OsStrExt;

/// Two libraries that can be opened.
const LIBRARY: &CStr = c"/proc/self/exe";
const LEADING: &CStr = c"/proc/self/maps";

fn ours(library: &CStr, leading: &CStr, follow: bool) -> Inheritance {
    Inheritance {
        library: library.into(),
        leading: leading.into(),
        folder: None,
        directory: c"/nowhere".into(),
        mark: c"/nowhere/mark".into(),
        follow,
    }
}

/// The environment that a program gets which is given this one.
fn after(ours: &Inheritance, image: &Image, before: &[&str]) -> Vec<String> {
    let before: Vec<CString> = before.iter().map(|entry| CString::new(*entry).expect("no NUL")).collect();
    let mut pointers: Vec<*const c_char> = before.iter().map(|entry| entry.as_ptr()).collect();
    pointers.push(core::ptr::null());
    // SAFETY: arrays as `execve` takes them.
    unsafe {
        ours.with_environment(image, pointers.as_ptr(), |after| {
            let entries = crate::start::settings::strings(after);
            entries.map(|entry| String::from_utf8_lossy(entry).into_owned()).collect()
        })
    }
}

#[test]
fn what_is_missing_comes_in_front_and_in_its_place() {
    let ours = ours(LIBRARY, LEADING, true);
    let image = Image::unknown();
    let after = |before: &[&str]| after(&ours, &image, before);
    assert_eq!(after(&[]), ["LD_PRELOAD=/proc/self/maps"]);
    assert_eq!(after(&["A=1", "B"]), ["A=1", "B", "LD_PRELOAD=/proc/self/maps"]);
    assert_eq!(after(&["A=1", "LD_PRELOAD=", "B=2"]), ["A=1", "LD_PRELOAD=/proc/self/maps", "B=2"]);
    let others = after(&["LD_PRELOAD=/old.so", "LD_PRELOAD=/a.so :b.so", "B=2"]);
    assert_eq!(others, ["LD_PRELOAD=/old.so", "LD_PRELOAD=/proc/self/maps:/a.so:b.so", "B=2"]);
    // The library without its settings, somewhere among others.
    let among = after(&["LD_PRELOAD=/a.so:/proc/self/exe:/b.so:/proc/self/exe"]);
    assert_eq!(among, ["LD_PRELOAD=/a.so:/proc/self/maps:/b.so"]);
    for stays in [
        &["LD_PRELOAD=/proc/self/exe", "MEMSCOPE_OUTPUT=/x"][..],
        &["LD_PRELOAD=/a.so:/proc/self/maps"],
        &["LD_PRELOAD=/another/recording/libmemscope.so"],
    ] {
        assert_eq!(after(stays), stays);
    }
    let long: Vec<String> = (0..5000).map(|n| format!("V{n}={n}")).collect();
    let long: Vec<&str> = long.iter().map(String::as_str).collect();
    let changed = after(&long);
    assert_eq!(
        (changed.len(), &changed[..5000]),
        (5001, &long.iter().map(|&s| s.to_owned()).collect::<Vec<_>>()[..])
    );
}

#[test]
fn what_cannot_be_loaded_is_not_handed_on() {
    let glibc = Image::unknown();
    let gone = ours(c"/no/such/library", c"/no/such/either", true);
    assert_eq!(after(&gone, &glibc, &["A=1"]), ["A=1"]);
    assert_eq!(
        after(&gone, &glibc, &["LD_PRELOAD=/no/such/library", "MEMSCOPE_OUTPUT=/x"]),
        ["MEMSCOPE_OUTPUT=/x"]
    );
    assert_eq!(after(&gone, &glibc, &["LD_PRELOAD=/a.so:/no/such/either"]), ["LD_PRELOAD=/a.so"]);
    // Without a path of its own, what has everything keeps it.
    let plain = ours(LIBRARY, c"", true);
    let whole = ["LD_PRELOAD=/proc/self/exe", "MEMSCOPE_OUTPUT=/x"];
    assert_eq!(after(&plain, &glibc, &whole), whole);
    assert_eq!(after(&plain, &glibc, &["LD_PRELOAD=/proc/self/exe"]), [""; 0]);
}

#[test]
fn children_that_are_not_followed_get_nothing_new() {
    let ours = ours(LIBRARY, LEADING, false);
    assert_eq!(after(&ours, &Image::unknown(), &["A=1"]), ["A=1"]);
    // But the library would begin another recording if it found no settings.
    let filtered = after(&ours, &Image::unknown(), &["LD_PRELOAD=/proc/self/exe"]);
    assert_eq!(filtered, ["LD_PRELOAD=/proc/self/maps"]);
    // SAFETY: there is none.
    let none = unsafe { Environment::of(core::ptr::null()) };
    assert!(ours.lists(&Image::unknown(), &none).is_none());
}

/// An ELF file's first bytes, with a program header that asks for `loader`.
fn elf(machine: u8, loader: Option<&str>) -> Vec<u8> {
    let mut bytes = vec![0; 64];
    bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
    (bytes[16], bytes[18], bytes[32], bytes[54]) = (3, machine, 64, 56);
    if let Some(loader) = loader {
        bytes[56] = 1;
        let mut segment = [0; 56];
        (segment[0], segment[8], segment[32]) = (3, 120, loader.len() as u8 + 1);
        bytes.extend(segment);
        bytes.extend(loader.bytes().chain([0]));
    }
    bytes
}

#[test]
fn files_are_told_apart() {
    let folder = std::env::temp_dir().join(format!("memscope-image-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let look = |bytes: &[u8]| {
        let path = folder.join("file");
        std::fs::write(&path, bytes).expect("written");
        image::look(Program::Path(&CString::new(path.as_os_str().as_bytes()).expect("no NUL")))
    };
    let glibc = elf(62, Some("/lib64/ld-linux-x86-64.so.2"));
    for bytes in [&glibc[..], b"", b"echo", b"#!", b"#!/no/such/interpreter\n"] {
        let image = look(bytes);
        assert!(image.is_loaded_by_glibc() && image.unrecorded().is_none(), "{bytes:?}");
    }
    let musl = look(&elf(62, Some("/lib/ld-musl-x86_64.so.1")));
    assert!(
        musl.takes_other_libraries()
            && musl.unrecorded().is_some_and(|why| why == c"its loader is not that of glibc")
    );
    assert!(look(&elf(183, None)).takes_other_libraries());
    let fixed = look(&elf(62, None));
    assert!(!fixed.takes_other_libraries() && !fixed.is_loaded_by_glibc());
    let mut path = [0; 4096];
    assert!(fixed.path(&mut path).ends_with(b"/file"));
    let ours = ours(LIBRARY, LEADING, true);
    let before = ["LD_PRELOAD=/a.so:/proc/self/exe", "MEMSCOPE_OUTPUT=/x"];
    assert_eq!(after(&ours, &musl, &before), ["LD_PRELOAD=/a.so", "MEMSCOPE_OUTPUT=/x"]);
    assert_eq!(after(&ours, &musl, &["A=1"]), ["A=1"]);
    assert_eq!(after(&ours, &fixed, &before), before);
    assert_eq!(after(&ours, &fixed, &["A=1"]), ["A=1"]);
    // A script is what its interpreter is, which may be a script.
    let inner = folder.join("inner");
    std::fs::write(&inner, elf(62, None)).expect("written");
    let script = look(format!("#! \t{} -x\nrest", inner.display()).as_bytes());
    assert!(script.path(&mut path).ends_with(b"/inner"));
    std::fs::write(&inner, format!("#!{}\n", inner.display())).expect("written");
    assert!(look(format!("#!{}", inner.display()).as_bytes()).is_loaded_by_glibc(), "without end");
    // Cut anywhere, nothing goes wrong.
    for cut in 0..glibc.len() {
        let _ = look(&glibc[..cut]);
    }
    std::fs::remove_dir_all(folder).expect("removed");
}

#[test]
fn programs_are_found_as_execvp_finds_them() {
    let found = |name: &CStr, path: &[u8]| {
        let mut into = [0; 4096];
        image::look(Program::Search(name, path)).path(&mut into).to_vec()
    };
    assert!(found(c"sh", b"/no/such:/proc:/bin").ends_with(b"sh") || !found(c"sh", b"/bin").is_empty());
    assert_eq!(found(c"no-such-program-anywhere", b"/bin:/usr/bin"), b"");
    assert_eq!(found(c"/bin/sh", b""), found(c"sh", b"/bin"));
    let entries = [c"A=1".as_ptr(), c"PATH=/x:".as_ptr(), core::ptr::null()];
    // SAFETY: such an array.
    assert_eq!(unsafe { directories(entries.as_ptr()) }, b"/x:");
    // SAFETY: such an array.
    assert_eq!(unsafe { directories(entries[2..].as_ptr()) }, b"/bin:/usr/bin");
}
