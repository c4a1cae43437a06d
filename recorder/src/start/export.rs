//! The export at the end of a process that was recorded by hand: the work of `memscope-cli`, as a child.

use super::directory::executable;
use super::settings::Format;
use super::{Context, end, say};
use crate::symbols;
use crate::sys::signal::Blocked;
use crate::sys::{file, syscall};
use std::ffi::CString;

/// Runs `memscope-cli analyze` for each file that was asked for, and waits for it.
pub fn run(context: &Context) {
    let cli = match find(context) {
        Ok(cli) => cli,
        Err(why) => return say(&format!("no export: {why}: {}", end::remedy(context))),
    };
    let outputs: &[&str] = match context.format {
        Format::Json => &["json"],
        Format::Html => &["html"],
        Format::Both => &["json", "html"],
    };
    make_parents(&context.export_path);
    for extension in outputs {
        let output = with_extension(&context.export_path, extension);
        // Whatever MEMSCOPE_CLI names may not be memscope-cli.
        let ok = analyze(&cli, context.directory.path(), &output) && is_there(&output);
        let name = String::from_utf8_lossy(&output).into_owned();
        if !ok {
            // Not the same path again: memscope-cli has just said why it cannot be.
            say(&format!("no export: {}", end::remedy(context)));
        } else if !context.quiet {
            say(&format!("exported to {name}"));
        }
    }
}

/// Makes the folders that the export goes to. Where one cannot be made, `memscope-cli` says what is wrong with the path.
fn make_parents(path: &[u8]) {
    let ends = path.iter().enumerate().skip(1).filter(|&(_, &byte)| byte == b'/').map(|(at, _)| at);
    for parent in ends.filter_map(|end| CString::new(&path[..end]).ok()) {
        let _ = file::make_directory(&parent, 0o777);
    }
}

fn with_extension(path: &[u8], extension: &str) -> Vec<u8> {
    let dotted = [b".", extension.as_bytes()].concat();
    let base = path.strip_suffix(b".json").or_else(|| path.strip_suffix(b".html")).unwrap_or(path);
    [base, &dotted].concat()
}

fn is_there(path: &[u8]) -> bool {
    CString::new(path).is_ok_and(|path| file::accessible(&path, libc::F_OK))
}

/// `MEMSCOPE_CLI`, or the launcher beside the library, or in `PATH`; or why there is none.
fn find(context: &Context) -> Result<CString, &'static str> {
    if let Some(cli) = &context.cli {
        let runs = file::accessible(cli, libc::X_OK);
        return if runs { Ok(cli.clone()) } else { Err("MEMSCOPE_CLI names nothing that can be run") };
    }
    let beside = beside_library().into_iter();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path: Vec<_> = std::env::split_paths(&path)
        .map(|folder| folder.join("memscope-cli").into_os_string())
        .map(std::os::unix::ffi::OsStringExt::into_vec)
        .collect();
    beside
        .chain(in_path)
        .filter_map(|path| CString::new(path).ok())
        .find(|path| file::accessible(path, libc::X_OK))
        .ok_or("memscope-cli is neither beside the library nor in PATH nor named by MEMSCOPE_CLI")
}

fn beside_library() -> Option<Vec<u8>> {
    let here = beside_library as fn() -> Option<Vec<u8>> as usize;
    let own = symbols::containing(here).map(|module| module.path().to_bytes().to_vec());
    // Where the recorder is linked into the program, the loader has no path for it.
    let name = own.filter(|path| !path.is_empty()).unwrap_or_else(executable);
    let folder = name.iter().rposition(|&byte| byte == b'/').map_or(b".".as_slice(), |at| &name[..at]);
    Some([folder, b"/memscope-cli"].concat())
}

/// Runs `CLI analyze DIRECTORY OUTPUT` with our variables taken out of its environment; true where it
/// succeeded.
fn analyze(cli: &CString, directory: &[u8], output: &[u8]) -> bool {
    let arguments: Option<Vec<CString>> = [cli.as_bytes(), b"analyze", directory, output]
        .into_iter()
        .map(|argument| CString::new(argument).ok())
        .collect();
    let Some(arguments) = arguments else { return false };
    let environment: Vec<CString> = std::env::vars_os()
        .filter_map(|(name, value)| {
            let name = std::os::unix::ffi::OsStringExt::into_vec(name);
            let value = std::os::unix::ffi::OsStringExt::into_vec(value);
            let ours = name.starts_with(b"MEMSCOPE_") || name == b"LD_PRELOAD";
            (!ours).then(|| CString::new([name, value].join(&b'=')).ok()).flatten()
        })
        .collect();
    let pointers = |strings: &[CString]| -> Vec<*const libc::c_char> {
        strings.iter().map(|s| s.as_ptr()).chain([core::ptr::null()]).collect()
    };
    let (argv, envp) = (pointers(&arguments), pointers(&environment));
    let exec = [cli.as_ptr() as usize, argv.as_ptr() as usize, envp.as_ptr() as usize, 0, 0, 0];
    let blocked = Blocked::all();
    // SAFETY: all pointers are valid until the call returns.
    let child = unsafe { between(exec, &blocked) };
    drop(blocked);
    child.is_some_and(wait)
}

/// Starts a program by `execve` with these arguments, as the child of a child of ours: the first of them raises no SIGCHLD when it ends and
/// no `wait` of the program's can see it (its exit signal is 0, which an `execve` would undo). Its status is the program's.
///
/// # Safety
/// The arguments are an `execve`'s. Every signal is `blocked`.
unsafe fn between(exec: [usize; 6], blocked: &Blocked) -> Option<usize> {
    // SAFETY: the children of plain forks (no shared memory) make nothing but system calls; an action of zeros is the default one, of
    // four words.
    unsafe {
        let fork = |exit_signal| syscall(libc::SYS_clone, [exit_signal, 0, 0, 0, 0, 0]);
        let child = fork(0).ok()?;
        if child != 0 {
            return Some(child);
        }
        // Where the program ignores SIGCHLD, nothing would be left to wait for.
        let default = [0_u64; 4];
        let action = [libc::SIGCHLD as usize, default.as_ptr() as usize, 0, 8, 0, 0];
        let _ = syscall(libc::SYS_rt_sigaction, action);
        let status = match fork(libc::SIGCHLD as usize) {
            Ok(0) => {
                blocked.lift();
                let _ = syscall(libc::SYS_execve, exec);
                127
            }
            Ok(program) => usize::from(!wait(program)),
            Err(_) => 126,
        };
        loop {
            let _ = syscall(libc::SYS_exit_group, [status, 0, 0, 0, 0, 0]);
        }
    }
}

/// Waits for the end of a child; true where that was a success.
fn wait(pid: usize) -> bool {
    let mut status = 0_i32;
    loop {
        let args = [pid, &raw mut status as usize, libc::__WALL as usize, 0, 0, 0];
        // SAFETY: `status` is writable.
        match unsafe { syscall(libc::SYS_wait4, args) } {
            Ok(_) => return status == 0,
            Err(crate::sys::Errno::EINTR) => {}
            Err(_) => return false,
        }
    }
}
