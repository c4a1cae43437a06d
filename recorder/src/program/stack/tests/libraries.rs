//! Libraries that come and go.

use super::*;
use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::process::Command;

const SOURCE: &str = "
typedef unsigned long (*hook)(void);
unsigned long pass_on(hook then) { return then() + ADD; }
";

fn build(directory: &Path, name: &str, define: &str) -> PathBuf {
    let (source, library) = (directory.join(format!("{name}.c")), directory.join(format!("{name}.so")));
    std::fs::write(&source, SOURCE).unwrap();
    let status = Command::new("cc")
        .args(["-O2", "-shared", "-fPIC", "-Wl,--build-id=sha1", define, "-o"])
        .args([&library, &source])
        .status();
    assert!(status.expect("a C compiler").success());
    library
}

struct Library(*mut core::ffi::c_void);

impl Library {
    fn open(path: &Path) -> Self {
        let path = CString::new(path.to_str().unwrap()).unwrap();
        // SAFETY: the library has no constructors.
        let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW) };
        assert!(!handle.is_null());
        Self(handle)
    }

    fn function(&self) -> extern "C" fn(extern "C" fn() -> u64) -> u64 {
        // SAFETY: the library is open, and this is the function's type.
        unsafe {
            let address = libc::dlsym(self.0, c"pass_on".as_ptr());
            assert!(!address.is_null());
            core::mem::transmute(address)
        }
    }

    fn close(self) {
        // SAFETY: opened above; nobody runs its code.
        assert_eq!(unsafe { libc::dlclose(self.0) }, 0);
    }
}

#[test]
fn a_generation_ends_when_a_library_goes() {
    let directory = std::env::temp_dir().join(format!("memscope-stack-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let paths = [build(&directory, "first", "-DADD=1"), build(&directory, "second", "-DADD=1")];
    for path in &paths {
        let library = Library::open(path);
        let function = library.function();
        let start = function as usize as u64;
        let before = modules::generation();
        let id = (function(hook) - 1) as u32;
        let (frames, truncated) = resolve(id);
        assert!(!truncated && (start..start + 64).contains(&frames[0].1));
        LOG.with_borrow(|log| {
            let name = path.to_str().unwrap();
            let module = log.modules.iter().find(|module| module.3 == name).expect("its module is recorded");
            assert_eq!(module.4, 20);
            assert!((module.1..module.2).contains(&start));
        });
        let mut log = Log::default();
        // SAFETY: nothing is being unloaded at this moment.
        unsafe { check_unloaded(&mut log) };
        assert!(log.gone.is_empty());
        library.close();
        // SAFETY: as above.
        unsafe { check_unloaded(&mut log) };
        assert_eq!(log.gone.len(), 1);
        assert_eq!(log.gone[0].0, modules::generation());
        assert!(modules::generation() > before);
        let after = recurse(0) as u32;
        assert_ne!(after, 0);
    }
    std::fs::remove_dir_all(&directory).unwrap();
}
