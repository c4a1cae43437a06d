//! Tests of the command line.

use std::ffi::OsString;

use clap::CommandFactory;

use super::{AnalyzeArgs, Cli, Command, Export, Listed, Parsed, RunArgs, parse};
use crate::exit_codes::ExitCode;

fn words(line: &str) -> Vec<OsString> {
    std::iter::once("memscope-cli").chain(line.split_whitespace()).map(OsString::from).collect()
}

fn command(line: &str) -> Command {
    match parse(words(line)) {
        Ok(Parsed::Command(command)) => command,
        other => panic!("{line}: {other:?}"),
    }
}

fn run(line: &str) -> RunArgs {
    match command(line) {
        Command::Run(args) => args,
        other => panic!("{line}: {other:?}"),
    }
}

fn analyze(line: &str) -> AnalyzeArgs {
    match command(line) {
        Command::Analyze(args) => args,
        other => panic!("{line}: {other:?}"),
    }
}

fn error(line: &str) -> String {
    let error = parse(words(line)).expect_err(line);
    assert_eq!(error.exit_code(), ExitCode::Usage, "{line}");
    let text = error.to_string();
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.starts_with("memscope: wrong usage: "), "{text}");
    text
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn defaults_of_run() {
    let args = run("run ls");
    assert_eq!(args.export, Export::Json);
    assert_eq!(args.output, None);
    assert_eq!(args.listing.allocations, None);
    assert!(!args.listing.inline_stacks && !args.no_follow && !args.no_thread && !args.quiet);
    assert_eq!(args.command, ["ls"]);
}

#[test]
fn options_of_run() {
    let args =
        run("run --export both -o d --allocations live --inline-stacks --no-follow --no-thread --quiet x");
    assert_eq!(args.export, Export::Both);
    assert_eq!(args.output.as_deref(), Some("d".as_ref()));
    assert_eq!(args.listing.allocations, Some(Listed::Live));
    assert!(args.listing.inline_stacks && args.no_follow && args.no_thread && args.quiet);
    assert_eq!(run("run --output=e --export=none y").output.as_deref(), Some("e".as_ref()));
}

#[test]
fn what_follows_the_program_is_its_own() {
    assert_eq!(run("run cargo run --release").command, ["cargo", "run", "--release"]);
    assert_eq!(run("run ls --quiet --export html").command, ["ls", "--quiet", "--export", "html"]);
    assert_eq!(
        run("run --export json --quiet --export html --quiet x").export,
        Export::Html,
        "the last one counts"
    );
    assert!(!run("run ls --quiet").quiet);
    assert_eq!(run("run ls -o x").command, ["ls", "-o", "x"]);
    assert_eq!(run("run ls --help").command, ["ls", "--help"]);
}

#[test]
fn two_hyphens_are_optional_and_taken_once() {
    assert_eq!(run("run -- ls -l").command, ["ls", "-l"]);
    assert_eq!(run("run --quiet -- --odd-name").command, ["--odd-name"]);
    assert_eq!(run("run git log -- file").command, ["git", "log", "--", "file"]);
    assert_eq!(run("run -- git log -- file").command, ["git", "log", "--", "file"]);
    assert_eq!(run("run -- -- x").command, ["--", "x"]);
}

#[cfg(unix)]
#[test]
fn words_may_hold_any_bytes() {
    use std::os::unix::ffi::OsStringExt;
    let odd = OsString::from_vec(vec![b'a', 0xff]);
    let mut all = words("run cat");
    all.push(odd.clone());
    match parse(all) {
        Ok(Parsed::Command(Command::Run(args))) => assert_eq!(args.command[1], odd),
        other => panic!("{other:?}"),
    }
}

#[test]
fn wrong_usage_is_one_line_and_status_2() {
    assert!(error("run").contains("no program to run was given"));
    assert!(error("").contains("no command was given"));
    assert!(error("run --bogus ls").contains("--bogus"));
    assert!(error("run --export xml ls").contains("xml"));
    assert!(
        error("frobnicate").contains("frobnicate")
            && error("frobnicate").contains("memscope-cli run PROGRAM")
    );
    assert!(error("analyze x").contains("<OUTPUT>"));
    assert!(error("report").contains("<INPUT>"));
    assert!(error("run --quiet --").contains("no program to run was given"));
}

#[test]
fn analyze_takes_the_listing_options_anywhere() {
    let args = analyze("analyze in out.json --allocations none --inline-stacks");
    assert_eq!(args.listing.allocations, Some(Listed::None));
    assert!(args.listing.inline_stacks);
    assert_eq!(args.output.as_os_str(), "out.json");
}

#[test]
fn check_takes_anything() {
    assert!(matches!(command("check --leaks -- ls -l"), Command::Check { .. }));
    assert!(matches!(command("check"), Command::Check { .. }));
}

#[test]
fn help_and_version_are_no_errors() {
    for line in ["--help", "--version", "run --help", "help run"] {
        assert!(matches!(parse(words(line)), Ok(Parsed::Text(_))), "{line}");
    }
}

#[test]
fn an_unknown_option_is_told_where_options_go_only_if_a_program_follows() {
    let said = |line: &str| match parse(words(line)) {
        Err(error) => error.to_string(),
        other => panic!("{line}: {other:?}"),
    };
    for line in ["run --colour ls", "run --export json --colour ls"] {
        assert!(said(line).contains("before the program to run"), "{}", said(line));
    }
    for line in ["report --colour x", "analyze --colour x y.html", "preload-path --colour", "--colour"] {
        let said = said(line);
        assert!(said.contains("--colour") && !said.contains("before the program"), "{said}");
        assert!(said.contains("--help"), "{said}");
    }
}
