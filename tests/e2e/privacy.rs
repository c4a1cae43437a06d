//! What is recorded is the user's alone, and no name that others can guess leads us anywhere.

use std::fs::{self, Permissions};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use memscope_tests::TempDir;
use memscope_tests::recording::{analyze, traces_in};
use memscope_tests::{Cmd, Record, artifacts, program};

fn folder() -> TempDir {
    TempDir::new().expect("a folder")
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).permissions().mode()
        & 0o7777
}

/// Gives a file to another user; root can.
#[track_caller]
fn give_away(path: &Path) {
    let given = std::os::unix::fs::lchown(path, Some(65534), Some(65534));
    given.unwrap_or_else(|e| panic!("this test needs root: {e}"));
}

/// The spools that a process has mapped.
fn spools(pid: u32) -> Vec<PathBuf> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("it runs");
    let names = maps.lines().filter_map(|line| line.split_whitespace().nth(5));
    let mut spools: Vec<_> = names.filter(|name| name.ends_with(".spool")).map(PathBuf::from).collect();
    spools.dedup();
    spools
}

/// Traces and spools are 0600 in a directory of 0700, also while the program runs and whatever its umask; a spool's
/// name in a shared directory cannot be guessed.
#[test]
fn rights_while_it_runs() {
    let mut names = Vec::new();
    for umask in ["0000", "0022", "0777"] {
        let folder = folder();
        let record = Record::new([program::c("waits", &[])]).by_hand().command_in(folder.path());
        let script = format!("umask {umask}; exec {}", program::c("waits", &[]).display());
        let shell = record.with_argv(vec!["sh".into(), "-c".into(), script.into()]);
        let mut child = shell
            .command()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("started");
        let mut said = [0];
        child.stdout.as_mut().expect("piped").read_exact(&mut said).expect("it has worked");
        let rec = folder.path().join("rec");
        assert_eq!(mode(&rec), 0o700, "{umask}");
        let traces = traces_in(&rec);
        assert_eq!(traces.len(), 2, "the shell's and the program's");
        for trace in traces {
            assert_eq!(mode(&trace), 0o600, "{umask}");
        }
        let spools = spools(child.id());
        assert_eq!(spools.len(), 1, "{spools:?}");
        assert_eq!(mode(&spools[0]), 0o600, "{umask}");
        let name = spools[0].file_name().expect("a name").to_string_lossy().into_owned();
        assert!(name.len() >= "memscope-".len() + 24 && !name.contains(&child.id().to_string()), "{name}");
        names.push(name);
        drop(child.stdin.take());
        assert!(child.wait().expect("it ends").success());
        assert!(!spools[0].exists(), "removed with the trace complete");
    }
    names.dedup();
    assert_eq!(names.len(), 3, "each another: {names:?}");
}

/// Both ways refuse the directory, with one line; by hand the program runs.
#[track_caller]
fn assert_refused(rec: &Path, why: &str) {
    let program = program::c("stacks", &[]);
    let ran = Cmd::new([artifacts::cli()]).args(["run", "-o"]).arg(rec).arg("--").arg(&program).run();
    assert_eq!(ran.code(), 125, "{why}: {}", ran.tail());
    assert!(
        ran.err().starts_with("memscope: ") && ran.err().contains("somebody else"),
        "{why}: {}",
        ran.err()
    );
    let by_hand = Cmd::new([&program]).env("LD_PRELOAD", artifacts::library()).env("MEMSCOPE_OUTPUT", rec);
    let (native, ran) = (Cmd::new([&program]).run(), by_hand.run());
    assert_eq!((ran.code(), ran.out()), (native.code(), native.out()), "{why}");
    assert!(
        ran.err().contains("not recording") && ran.err().contains("somebody else"),
        "{why}: {}",
        ran.err()
    );
    assert_eq!(fs::read_dir(rec).expect("a directory").count(), 0, "{why}: nothing was put there");
}

#[test]
fn the_directory_of_another_user() {
    let folder = folder();
    let rec = folder.path().join("rec");
    fs::create_dir(&rec).expect("made");
    fs::set_permissions(&rec, Permissions::from_mode(0o777)).expect("opened");
    give_away(&rec);
    assert_refused(&rec, "another user's directory");
}

#[test]
fn a_link_in_place_of_the_directory() {
    let folder = folder();
    let (rec, there) = (folder.path().join("rec"), folder.path().join("there"));
    fs::create_dir(&there).expect("made");
    symlink(&there, &rec).expect("linked");
    assert_refused(&rec, "a link");
}

/// Links under the names of our files: not followed, whatever they lead to.
#[test]
fn links_in_place_of_files() {
    let folder = folder();
    let victim = folder.path().join("victim");
    fs::write(&victim, "as it was").expect("written");
    let program = program::c("stacks", &[]);
    let script = format!(
        "mkdir rec; for n in .first $$-0.trace $$-0.trace.new $$-1.trace.new; do ln -s {} rec/$n; done; \
         LD_PRELOAD={} MEMSCOPE_OUTPUT=rec MEMSCOPE_RECORDING=$PWD/rec exec {}",
        victim.display(),
        artifacts::library().display(),
        program.display(),
    );
    let ran = Cmd::new(["sh", "-ec", &script]).dir(folder.path()).run();
    assert_eq!(fs::read_to_string(&victim).expect("read"), "as it was", "{}", ran.tail());
    let regular: Vec<_> = traces_in(&folder.path().join("rec"))
        .into_iter()
        .filter(|trace| fs::symlink_metadata(trace).expect("there").is_file())
        .collect();
    assert_eq!(regular.len(), 1, "the trace has the next name: {}", ran.tail());
    assert!(regular[0].to_string_lossy().ends_with("-2.trace"), "{regular:?}");
    // The same for `run`, whose mark is overwritten by no link.
    let rec = folder.path().join("run");
    fs::create_dir(&rec).expect("made");
    symlink(&victim, rec.join(".run")).expect("linked");
    symlink(&victim, rec.join("snapshot.json")).expect("linked");
    give_away(&rec.join("snapshot.json"));
    fs::set_permissions(&victim, Permissions::from_mode(0o600)).expect("closed");
    let cli = Cmd::new([artifacts::cli()]).args(["run", "--quiet", "-o"]).arg(&rec).arg("--").arg(&program);
    let _ = cli.run().success();
    assert_eq!(fs::read_to_string(&victim).expect("read"), "as it was", "{}", rec.display());
}

/// An export to a name that others may have prepared in a shared directory.
#[test]
fn a_link_in_place_of_the_export() {
    let folder = folder();
    let shared = folder.path().join("shared");
    fs::create_dir(&shared).expect("made");
    fs::set_permissions(&shared, Permissions::from_mode(0o1777)).expect("opened");
    let (victim, link) = (folder.path().join("victim"), shared.join("memscope_final_snapshot.json"));
    fs::write(&victim, "as it was").expect("written");
    symlink(&victim, &link).expect("linked");
    give_away(&link);
    let rec = Record::new([program::c("stacks", &[])]).success();
    let _ = analyze(&rec.dir(), &link, &[]);
    assert_eq!(fs::read_to_string(&victim).expect("read"), "as it was");
    // A link of one's own is followed.
    let own = folder.path().join("own.json");
    symlink(&victim, &own).expect("linked");
    let _ = analyze(&rec.dir(), &own, &[]).success();
    assert!(fs::read_to_string(&victim).expect("read").contains("schema_version"));
}

/// The carried library goes where nobody else can put or change it.
#[test]
fn the_carried_library() {
    let folder = folder();
    let (cache, theirs) = (folder.path().join("cache"), folder.path().join("theirs"));
    for directory in [&cache, &theirs] {
        fs::create_dir(directory).expect("made");
    }
    symlink(&theirs, cache.join("memscope")).expect("linked");
    let ask =
        || Cmd::new([artifacts::cli()]).arg("preload-path").env("XDG_CACHE_HOME", &cache).run().success();
    let path = PathBuf::from(ask().out().trim_end());
    assert!(!path.starts_with(&cache) && !path.starts_with(&theirs), "{}", path.display());
    assert_eq!(fs::read_dir(&theirs).expect("listed").count(), 0);
    fs::remove_file(cache.join("memscope")).expect("removed");
    let path = PathBuf::from(ask().out().trim_end());
    assert!(path.starts_with(&cache), "{}", path.display());
    for part in path.ancestors().take(3) {
        let there = fs::symlink_metadata(part).expect("there");
        assert!(there.mode() & 0o022 == 0 && !there.is_symlink(), "{}", part.display());
    }
}

/// The program's environment is nowhere in the recording.
#[test]
fn the_environment_is_not_recorded() {
    let secret = "hunter2-nobody-may-read-this";
    for record in
        [Record::new([program::c("stacks", &[])]), Record::new([program::c("stacks", &[])]).by_hand()]
    {
        let recorded = record.env("A_TOKEN", secret).success();
        assert_eq!(recorded.traces().len(), 1);
        let html = recorded.folder.path().join("report.html");
        let _ = analyze(&recorded.dir(), &html, &[]).success();
        let files = [recorded.dir(), recorded.folder.path().to_owned()];
        for file in files.iter().flat_map(|dir| fs::read_dir(dir).expect("listed").flatten()) {
            let Ok(content) = fs::read(file.path()) else { continue };
            let has = |text: &str| content.windows(text.len()).any(|part| part == text.as_bytes());
            assert!(!has(secret) && !has("A_TOKEN"), "{}", file.path().display());
        }
    }
}
