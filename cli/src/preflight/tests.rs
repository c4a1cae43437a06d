//! Tests with real programs: built here, so that they are what they are said to be.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::check;
use crate::error::Error;
use crate::exit_codes::ExitCode;

struct Bench(tempfile::TempDir);

impl Bench {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn compile(&self, name: &str, options: &[&str]) -> PathBuf {
        let source = self.path("main.c");
        fs::write(&source, "int main(void) { return 0; }\n").expect("written");
        let program = self.path(name);
        let built = Command::new("gcc").args(options).arg("-o").arg(&program).arg(&source).status();
        assert!(built.expect("gcc").success(), "gcc {options:?}");
        program
    }

    fn script(&self, name: &str, content: &str) -> PathBuf {
        self.script_of_bytes(name, content.as_bytes())
    }

    fn script_of_bytes(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).expect("written");
        fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("set");
        path
    }
}

fn refusal(program: &Path) -> Error {
    check(program.as_os_str()).expect_err("refused")
}

fn assert_refused(program: &Path, code: ExitCode, why: &str) {
    let error = refusal(program);
    assert_eq!(error.exit_code(), code, "{error}");
    assert!(error.to_string().contains(why), "{error}");
    assert_eq!(error.to_string().lines().count(), 1, "{error}");
}

#[test]
fn an_ordinary_program_passes() {
    let bench = Bench::new();
    for options in [&["-no-pie"][..], &["-pie", "-fPIE"]] {
        let program = bench.compile("plain", options);
        assert_eq!(check(program.as_os_str()).expect("passes"), program);
    }
    assert!(check(OsStr::new("ls")).expect("in PATH").is_absolute());
}

#[test]
fn static_programs_are_refused() {
    let bench = Bench::new();
    for options in [&["-static"][..], &["-static-pie"]] {
        assert_refused(&bench.compile("static", options), ExitCode::Failed, "statically linked");
    }
}

#[test]
fn the_loader_itself_may_be_run() {
    assert!(check(OsStr::new("/lib64/ld-linux-x86-64.so.2")).is_ok());
}

#[test]
fn another_loader_is_refused() {
    let bench = Bench::new();
    let program = bench.compile("odd", &["-Wl,--dynamic-linker=/lib/ld-musl-x86_64.so.1"]);
    assert_refused(&program, ExitCode::Failed, "ld-musl-x86_64.so.1 is not that of glibc");
}

#[test]
fn an_object_file_cannot_be_run() {
    let bench = Bench::new();
    let object = bench.compile("main.o", &["-c"]);
    fs::set_permissions(&object, Permissions::from_mode(0o755)).expect("set");
    assert_refused(&object, ExitCode::CannotRun, "object file");
}

#[test]
fn a_damaged_program_is_not_given_to_the_shell() {
    let bench = Bench::new();
    assert_refused(&bench.script_of_bytes("cut", b"\x7fELF\x02\x01"), ExitCode::CannotRun, "damaged");
}

#[test]
fn missing_and_unusable_programs() {
    let bench = Bench::new();
    assert_refused(&bench.path("nothing"), ExitCode::NotFound, "no such program");
    let plain = bench.path("plain");
    fs::write(&plain, "x").expect("written");
    assert_refused(&plain, ExitCode::CannotRun, "not executable");
    assert_refused(bench.0.path(), ExitCode::CannotRun, "a directory");
    let lost = check(OsStr::new("memscope-no-such-program")).expect_err("refused");
    assert_eq!(lost.exit_code(), ExitCode::NotFound);
    assert!(lost.to_string().contains("in PATH"));
}

#[test]
fn scripts_are_judged_by_their_interpreter() {
    let bench = Bench::new();
    assert!(check(bench.script("good", "#!/bin/sh\nexit 0\n").as_os_str()).is_ok());
    assert!(check(bench.script("bare", "exit 0\n").as_os_str()).is_ok());
    let program = bench.compile("static", &["-static"]);
    let line = format!("#!{}\n", program.display());
    assert_refused(&bench.script("over-static", &line), ExitCode::Failed, "statically linked");
    assert_refused(
        &bench.script("lost", "#!/no/such/program\n"),
        ExitCode::NotFound,
        "/no/such/program does not exist",
    );
    assert_refused(&bench.script("windows", "#!/bin/sh\r\n"), ExitCode::NotFound, "carriage return");
    let endless = bench.path("endless");
    bench.script("endless", &format!("#!{}\n", endless.display()));
    assert_refused(&endless, ExitCode::CannotRun, "without end");
}

#[test]
fn set_user_id_programs_of_others_are_refused() {
    let bench = Bench::new();
    let program = bench.compile("setuid", &[]);
    fs::set_permissions(&program, Permissions::from_mode(0o4755)).expect("set");
    // One's own changes nothing.
    assert!(check(program.as_os_str()).is_ok());
    // Only root can give a file away, so elsewhere the system's own programs must serve.
    if chown(&program, Some(12_345), None).is_ok() {
        fs::set_permissions(&program, Permissions::from_mode(0o4755)).expect("set");
        if !super::image::on_nosuid_mount(&program) {
            assert_refused(&program, ExitCode::Failed, "set-user-ID");
        }
    } else {
        assert_refused(Path::new("/usr/bin/passwd"), ExitCode::Failed, "set-user-ID");
    }
}
