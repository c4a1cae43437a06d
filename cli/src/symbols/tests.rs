//! Tests with programs built here, so that each line is known.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use memscope_shared::model::StackFrame;

use super::file::Unusable;
use super::{FrameTable, Mapped, ModuleFile, Resolver};
use crate::elf;

/// Line numbers matter: see `LINE_*`.
const CPP: &str = r#"
#include <cstdlib>
namespace shop {
template <class T> struct Shelf {
    __attribute__((noinline)) static void *fill(unsigned long n) {
        return malloc(n * sizeof(T));
    }
};
inline __attribute__((always_inline)) void *inner(unsigned long n) {
    return Shelf<int>::fill(n);
}
inline __attribute__((always_inline)) void *middle(unsigned long n) {
    return inner(n + 1);
}
__attribute__((noinline)) void *outer(unsigned long n) {
    void *p = middle(n);
    asm volatile("" ::: "memory");
    return p;
}
}
int main(int argc, char **) {
    free(shop::outer(argc));
    return 0;
}
"#;
const LINE_INNER: u32 = 10;
const LINE_MIDDLE: u32 = 13;
const LINE_OUTER: u32 = 16;

const RUST: &str = "
mod depot {
    #[inline(never)]
    pub fn store(n: usize) -> Vec<u8> {
        std::hint::black_box(Vec::with_capacity(n))
    }
}
fn main() {
    std::hint::black_box(depot::store(std::env::args().count()));
}
";

struct Bench(tempfile::TempDir);

impl Bench {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn build(&self, compiler: &str, source: &str, content: &str, name: &str, options: &[&str]) -> PathBuf {
        let source = self.path(source);
        fs::write(&source, content).expect("written");
        let program = self.path(name);
        run(Command::new(compiler).args(options).arg("-o").arg(&program).arg(&source));
        program
    }

    fn cpp(&self, name: &str) -> PathBuf {
        self.build("g++", "shop.cc", CPP, name, &["-g", "-O2", "-Wl,--build-id"])
    }
}

fn run(command: &mut Command) {
    let output = command.output().expect("runs");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn output_of(command: &mut Command) -> String {
    let output = command.output().expect("runs");
    String::from_utf8(output.stdout).expect("text")
}

/// Address and size of the first function whose demangled name begins so.
fn function(program: &Path, name: &str) -> (u64, u64) {
    let symbols = output_of(Command::new("nm").args(["-C", "-S"]).arg(program));
    let line = symbols.lines().find(|line| {
        let fields: Vec<&str> = line.splitn(4, ' ').collect();
        fields.len() == 4 && fields[3].starts_with(name)
    });
    let line = line.unwrap_or_else(|| panic!("no {name} in {}", program.display()));
    let number =
        |at: usize| u64::from_str_radix(line.split(' ').nth(at).expect("a field"), 16).expect("a number");
    (number(0), number(1))
}

/// The address before the one to which the only call in the function returns.
fn call_in(program: &Path, name: &str) -> u64 {
    let (start, size) = function(program, name);
    let code = output_of(
        Command::new("objdump")
            .args(["-d", "--no-show-raw-insn"])
            .arg(format!("--start-address={start}"))
            .arg(format!("--stop-address={}", start + size))
            .arg(program),
    );
    let mut lines = code.lines().skip_while(|line| !line.contains("call"));
    let after = lines.nth(1).unwrap_or_else(|| panic!("no call in {name}: {code}"));
    u64::from_str_radix(after.trim().split(':').next().expect("an address"), 16).expect("hex") - 1
}

fn module(path: &Path) -> ModuleFile {
    ModuleFile {
        path: path.as_os_str().as_bytes().to_vec(),
        build_id: elf::build_id(path).unwrap_or_default(),
    }
}

fn frames(file: ModuleFile, address: u64) -> (Vec<StackFrame>, Resolver) {
    let mut resolver = Resolver::new();
    let bias = 0x7f00_0000_0000;
    let mapped = [Mapped { file, bias }];
    let wanted = [(Some(0), address + bias)];
    let table = FrameTable::new(&mapped, wanted.into_iter(), &mut resolver, |_| ());
    let at = table.of(Some(0), address + bias).to_vec();
    let frames = table.into_frames();
    (at.into_iter().map(|at| frames[at as usize].clone()).collect(), resolver)
}

fn assert_shop(frames: &[StackFrame]) {
    let names: Vec<_> =
        frames.iter().map(|f| f.function.as_deref().unwrap_or("?").split('(').next()).collect();
    assert_eq!(names, [Some("shop::inner"), Some("shop::middle"), Some("shop::outer")]);
    let lines: Vec<_> = frames.iter().filter_map(|f| f.line).collect();
    assert_eq!(lines, [LINE_INNER, LINE_MIDDLE, LINE_OUTER]);
    assert_eq!(frames.iter().map(|f| f.inlined).collect::<Vec<_>>(), [true, true, false]);
    assert!(frames.iter().all(|f| f.file.as_deref().is_some_and(|file| file.ends_with("/shop.cc"))));
}

#[test]
fn inlined_calls_are_frames_innermost_first() {
    let bench = Bench::new();
    let program = bench.cpp("shop");
    let address = call_in(&program, "shop::outer");
    let (frames, resolver) = frames(module(&program), address);
    assert_shop(&frames);
    assert!(frames.iter().all(|f| f.address == address + 0x7f00_0000_0000));
    assert!(frames.iter().all(|f| f.module.as_deref() == program.to_str()));
    assert!(resolver.unusable().is_empty());
}

#[test]
fn cpp_names_are_demangled() {
    let bench = Bench::new();
    let program = bench.cpp("shop");
    let (address, _) = function(&program, "shop::Shelf<int>::fill");
    let (frames, _) = frames(module(&program), address);
    assert_eq!(frames[0].function.as_deref(), Some("shop::Shelf<int>::fill(unsigned long)"));
}

#[test]
fn rust_names_are_demangled_old_and_new() {
    let bench = Bench::new();
    for mangling in ["legacy", "v0"] {
        let version = format!("-Csymbol-mangling-version={mangling}");
        // Only the default needs no permission to be chosen, on some compilers.
        let mut rustc = Command::new("rustc");
        let source = bench.path("depot.rs");
        fs::write(&source, RUST).expect("written");
        let program = bench.path(mangling);
        rustc.env("RUSTC_BOOTSTRAP", "1").args(["-g", "-O", "-Zunstable-options", &version, "-o"]);
        run(rustc.arg(&program).arg(&source));
        let (address, _) = function(&program, "depot::depot::store");
        let (frames, _) = frames(module(&program), address);
        let outer = frames.last().expect("a frame");
        assert_eq!(outer.function.as_deref(), Some("depot::depot::store"), "{mangling}");
        assert!(outer.file.as_deref().is_some_and(|file| file.ends_with("depot.rs")));
    }
}

#[test]
fn a_stripped_program_has_the_names_it_exports() {
    let bench = Bench::new();
    let program = bench.build("g++", "shop.cc", CPP, "shop", &["-O2", "-rdynamic", "-s"]);
    let symbols = output_of(Command::new("nm").args(["-D", "-C"]).arg(&program));
    let line = symbols.lines().find(|l| l.contains("shop::outer")).expect("exported");
    let address = u64::from_str_radix(line.split(' ').next().expect("a field"), 16).expect("hex");
    let (frames, _) = frames(module(&program), address);
    assert_eq!(frames[0].function.as_deref(), Some("shop::outer(unsigned long)"));
    assert_eq!(frames[0].line, None);
}

#[test]
fn a_debug_link_is_followed() {
    let bench = Bench::new();
    let program = bench.cpp("shop");
    let address = call_in(&program, "shop::outer");
    let debug = bench.path("shop.debug");
    run(Command::new("objcopy").arg("--only-keep-debug").arg(&program).arg(&debug));
    run(Command::new("objcopy")
        .arg("--strip-all")
        .arg(format!("--add-gnu-debuglink={}", debug.display()))
        .arg(&program));
    assert_shop(&frames(module(&program), address).0);
}

#[test]
fn a_wrong_debug_link_costs_no_names() {
    let bench = Bench::new();
    let program = bench.build("g++", "shop.cc", CPP, "shop", &["-O2", "-rdynamic"]);
    let address = call_in(&program, "shop::outer");
    let debug = bench.path("shop.debug");
    run(Command::new("objcopy").arg("--only-keep-debug").arg(&program).arg(&debug));
    run(Command::new("objcopy")
        .arg("--strip-debug")
        .arg(format!("--add-gnu-debuglink={}", debug.display()))
        .arg(&program));
    // Another build's debug file: its checksum differs.
    let other = bench.build("g++", "other.cc", "int main() { return 3; }", "other", &["-g"]);
    run(Command::new("objcopy").arg("--only-keep-debug").arg(&other).arg(&debug));
    let (frames, _) = frames(module(&program), address);
    assert_eq!(frames[0].function.as_deref(), Some("shop::outer(unsigned long)"));
}

#[test]
fn a_debug_file_is_found_by_its_build_id() {
    let bench = Bench::new();
    let program = bench.cpp("shop");
    let file = module(&program);
    let hex: String = file.build_id.iter().map(|b| format!("{b:02x}")).collect();
    let directory = bench.path("debug");
    let debug = directory.join(format!(".build-id/{}/{}.debug", &hex[..2], &hex[2..]));
    fs::create_dir_all(debug.parent().expect("a parent")).expect("made");
    run(Command::new("objcopy").arg("--only-keep-debug").arg(&program).arg(&debug));
    run(Command::new("strip").arg(&program));
    let sources = file.sources_with(&[Path::new("/no/such"), &directory]).expect("usable");
    assert_eq!(sources[0], super::file::Source::Debug(debug.clone()));
    // The module itself may be gone by now.
    fs::remove_file(&program).expect("removed");
    assert_eq!(file.sources_with(&[&directory]).expect("usable"), [super::file::Source::Debug(debug)]);
    assert_eq!(file.sources_with(&[]), Err(Unusable::Missing));
}

#[test]
fn a_debug_file_by_itself_gives_lines() {
    let bench = Bench::new();
    let program = bench.cpp("shop");
    let address = call_in(&program, "shop::outer");
    let debug = bench.path("shop.debug");
    run(Command::new("objcopy").arg("--only-keep-debug").arg(&program).arg(&debug));
    assert_shop(&frames(module(&debug), address).0);
}

#[test]
fn another_build_is_not_believed() {
    let bench = Bench::new();
    let program = bench.cpp("shop");
    let address = call_in(&program, "shop::outer");
    let recorded = module(&program);
    bench.build("g++", "shop.cc", "int main() { return 1; }", "shop", &["-g", "-Wl,--build-id"]);
    let (frames, resolver) = frames(recorded.clone(), address);
    assert_eq!(frames.len(), 1);
    assert_eq!((&frames[0].function, frames[0].line), (&None, None));
    assert_eq!(frames[0].module.as_deref(), program.to_str());
    assert_eq!(resolver.unusable(), [(recorded, Unusable::Changed)]);
}

#[test]
fn what_is_no_file_has_a_module_and_an_address() {
    let vdso = ModuleFile { path: b"[vdso]".to_vec(), build_id: vec![1, 2] };
    let (frames, resolver) = frames(vdso, 0x600);
    assert_eq!((frames[0].function.as_deref(), frames[0].module.as_deref()), (None, Some("[vdso]")));
    assert!(resolver.unusable().is_empty());
}

#[test]
fn an_address_outside_of_all_modules_is_a_frame_too() {
    let table =
        FrameTable::new(&[], [(None, 5), (None, 5), (Some(9), 5)].into_iter(), &mut Resolver::new(), |_| ());
    assert_eq!(table.of(None, 5), [0]);
    assert_eq!(table.of(None, 6), [0_u32; 0]);
    assert_eq!(table.into_frames().len(), 1);
}

#[test]
fn a_file_mapped_twice_at_one_place_gives_its_frames_once() {
    let own = std::env::current_exe().expect("our path");
    let mapped = Mapped { file: module(&own), bias: 0 };
    let mut resolver = Resolver::new();
    let mut done = 0;
    let modules = [mapped.clone(), mapped];
    let wanted = [(Some(0), 0x1000), (Some(1), 0x1000), (Some(1), 0x2000)];
    let table = FrameTable::new(&modules, wanted.into_iter(), &mut resolver, |n| done += n);
    assert_eq!(table.of(Some(0), 0x1000), table.of(Some(1), 0x1000));
    assert_eq!(done, 2, "each distinct address is looked up once");
    FrameTable::new(&modules, wanted.into_iter(), &mut resolver, |n| done += n);
    assert_eq!(done, 2, "and once for all processes");
}
