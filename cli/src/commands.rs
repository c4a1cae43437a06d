//! What each word of the command line does.

use std::env;
use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::args::{self, AnalyzeArgs, Command, Parsed, ReportArgs};
use crate::embed::Library;
use crate::error::{Error, Result};
use crate::exit_codes::ExitCode;
use crate::export::{Plan, export};
use crate::input::Input;
use crate::output::say;
use crate::report::terminal;
use crate::run;

/// Width of the terminal report where nobody says how wide the terminal is.
const WIDTH: usize = 100;

/// Does what the command line says.
pub fn dispatch() -> Result<ExitCode> {
    match args::parse(env::args_os())? {
        Parsed::Text(text) => print(|out| write!(out, "{}", text.render())),
        Parsed::Command(Command::Run(mut args)) => {
            args.quiet |= env::var_os("MEMSCOPE_QUIET").is_some_and(|value| value == "1");
            run::run(&args)
        }
        Parsed::Command(Command::Analyze(args)) => analyze(&args),
        Parsed::Command(Command::Report(args)) => report(&args),
        Parsed::Command(Command::PreloadPath) => preload_path(),
        Parsed::Command(Command::Check { .. }) => Err(Error::usage("check", "not available yet")
            .remedy("`memscope-cli run` records, and its report lists what is still live")),
    }
}

fn analyze(args: &AnalyzeArgs) -> Result<ExitCode> {
    let output = Some(args.output.as_path());
    let plan = match args.output.extension().map(OsStr::as_bytes) {
        Some(b"html" | b"htm") => Plan { html: output, listing: args.listing, ..Plan::default() },
        Some(b"json") => Plan { json: output, listing: args.listing, ..Plan::default() },
        _ => {
            return Err(Error::usage(
                args.output.display(),
                "the output's name says neither .html nor .json",
            )
            .remedy("end it in .html for a report, in .json for a snapshot"));
        }
    };
    let done = export(Input::find(&args.input)?, &plan)?;
    done.remarks.iter().for_each(say);
    Ok(ExitCode::Success)
}

fn report(args: &ReportArgs) -> Result<ExitCode> {
    let done = export(Input::find(&args.input)?, &Plan { keep: true, ..Plan::default() })?;
    done.remarks.iter().for_each(say);
    print(|out| terminal::write(&done.snapshot, out, width()))
}

fn preload_path() -> Result<ExitCode> {
    let library = Library::ready()?;
    print(|out| {
        out.write_all(library.path().as_os_str().as_bytes())?;
        out.write_all(b"\n")
    })
}

/// Writes to stdout. That its reader has gone is no error.
fn print(
    write: impl FnOnce(&mut io::BufWriter<io::StdoutLock<'static>>) -> io::Result<()>,
) -> Result<ExitCode> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    match write(&mut out).and_then(|()| out.flush()) {
        Ok(()) => Ok(ExitCode::Success),
        Err(error) => Err(Error::file(Path::new("standard output"), &error)),
    }
}

fn width() -> usize {
    let columns = env::var("COLUMNS").ok().and_then(|text| text.parse().ok());
    columns
        .or_else(|| rustix::termios::tcgetwinsize(io::stdout()).ok().map(|size| usize::from(size.ws_col)))
        .filter(|width| *width > 0)
        .unwrap_or(WIDTH)
}
