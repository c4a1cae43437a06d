//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::{ContextKind, ErrorKind};
use clap::{Args, Parser, Subcommand, ValueEnum};
use memscope_shared::model::Included;

use crate::error::Error;

/// Records every heap allocation of a program, with its stack and its lifetime.
#[derive(Debug, Parser)]
#[command(name = "memscope-cli", bin_name = "memscope-cli", version, max_term_width = 100, after_help = AFTER_HELP)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a program and record its heap
    #[command(
        override_usage = "memscope-cli run [OPTIONS] [--] COMMAND [ARGS]...",
        after_help = AFTER_RUN_HELP,
        args_override_self = true
    )]
    Run(RunArgs),
    /// Make an HTML report (or a snapshot JSON) of a recording
    #[command(args_override_self = true)]
    Analyze(AnalyzeArgs),
    /// Show a recording in the terminal
    Report(ReportArgs),
    /// Print a path to libmemscope.so, for LD_PRELOAD by hand
    #[command(after_help = AFTER_PRELOAD_HELP)]
    PreloadPath,
    /// Run a program and fail when it leaks (not available yet)
    #[command(disable_help_flag = true)]
    Check {
        /// The command to check
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<OsString>,
    },
}

/// Arguments of `run`.
#[derive(Args, Debug)]
pub struct RunArgs {
    /// What to make when the program has ended
    #[arg(long, value_enum, default_value_t = Export::Json)]
    pub export: Export,
    /// Where the recording goes [default: memscope-PROGRAM-PID]
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    #[command(flatten)]
    pub listing: ListingArgs,
    /// Record only the first process, not what it starts
    #[arg(long)]
    pub no_follow: bool,
    /// No thread of ours in the program
    #[arg(long)]
    pub no_thread: bool,
    /// Nothing of our own on stderr but errors
    #[arg(long)]
    pub quiet: bool,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// Arguments of `analyze`.
#[derive(Args, Debug)]
pub struct AnalyzeArgs {
    /// A snapshot JSON, a recording directory, or one .trace file
    pub input: PathBuf,
    /// What to write: a report (.html) or a snapshot (.json)
    pub output: PathBuf,
    #[command(flatten)]
    pub listing: ListingArgs,
}

/// Arguments of `report`.
#[derive(Args, Debug)]
pub struct ReportArgs {
    /// A snapshot JSON, a recording directory, or one .trace file
    pub input: PathBuf,
}

/// What the JSON says of single allocations.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct ListingArgs {
    /// Which single allocations the JSON lists [default: all up to 100 000 of them, live above that]
    #[arg(long, value_enum)]
    pub allocations: Option<Listed>,
    /// Also fill each allocation's stack_trace in the JSON
    #[arg(long)]
    pub inline_stacks: bool,
}

/// Which single allocations the JSON lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Listed {
    /// Every one
    All,
    /// Those still live at the end
    Live,
    /// None
    None,
}

impl From<Listed> for Included {
    fn from(listed: Listed) -> Self {
        match listed {
            Listed::All => Self::All,
            Listed::Live => Self::Live,
            Listed::None => Self::None,
        }
    }
}

/// What `run` makes at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Export {
    /// The snapshot
    Json,
    /// The report
    Html,
    /// Both
    Both,
    /// Nothing but the recording
    None,
}

impl Export {
    /// As `MEMSCOPE_EXPORT_FORMAT` has it; `None` where nothing is made.
    #[must_use]
    pub const fn format(self) -> Option<&'static str> {
        match self {
            Self::Json => Some("json"),
            Self::Html => Some("html"),
            Self::Both => Some("both"),
            Self::None => None,
        }
    }

    /// Whether the snapshot JSON is wanted.
    #[must_use]
    pub const fn json(self) -> bool {
        matches!(self, Self::Json | Self::Both)
    }

    /// Whether the HTML report is wanted.
    #[must_use]
    pub const fn html(self) -> bool {
        matches!(self, Self::Html | Self::Both)
    }
}

/// What came of reading the command line.
#[derive(Debug)]
pub enum Parsed {
    /// Something to do.
    Command(Command),
    /// A text that was asked for (`--help`, `--version`).
    Text(clap::Error),
}

/// Reads the command line; `words` begin with the program's name.
pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Parsed, Error> {
    let words: Vec<OsString> = words.into_iter().collect();
    let runs = words.get(1).is_some_and(|word| word == "run" || word == "check");
    match Cli::try_parse_from(words) {
        Ok(cli) => Ok(Parsed::Command(cli.command)),
        Err(text) if matches!(text.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            Ok(Parsed::Text(text))
        }
        Err(error) => Err(usage_error(&error, runs)),
    }
}

/// Puts clap's several lines into one of ours. `runs`: behind our options comes a program with its own.
fn usage_error(error: &clap::Error, runs: bool) -> Error {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return Error::usage("wrong usage", "no command was given").remedy(HELP);
    }
    let text = error.render().to_string();
    let mut paragraphs = text.split("\n\n");
    let why = paragraphs.next().unwrap_or_default().trim_start_matches("error: ");
    // "To pass it as a value" helps nobody who mistyped one of our options.
    let tips = text.lines().filter_map(|line| line.trim().strip_prefix("tip: "));
    let tip = tips.into_iter().find(|tip| !tip.starts_with("to pass"));
    let missing_program = error.kind() == ErrorKind::MissingRequiredArgument
        && error.get(ContextKind::InvalidArg).is_some_and(|a| a.to_string().contains("<COMMAND>"));
    let unknown = error.kind() == ErrorKind::UnknownArgument;
    let why = if missing_program { "no program to run was given" } else { why };
    let usage = Error::usage("wrong usage", why);
    match tip {
        Some(tip) => usage.remedy(tip),
        None if error.kind() == ErrorKind::InvalidSubcommand => usage.remedy(COMMANDS),
        None if unknown && runs => usage.remedy(OPTIONS),
        None if unknown => usage.remedy(PATHS),
        None => usage.remedy(HELP),
    }
}

const HELP: &str = "`memscope-cli --help` and `memscope-cli COMMAND --help` say how";

const COMMANDS: &str =
    "to record a program: `memscope-cli run PROGRAM`; `memscope-cli --help` lists the commands";

const OPTIONS: &str =
    "our options come before the program to run, its own behind it; `memscope-cli COMMAND --help` lists ours";

const PATHS: &str = "`memscope-cli COMMAND --help` lists what there is; what stands behind `--` is no option";

/// What `--help` says behind the list of commands.
const AFTER_HELP: &str = "\
Examples:
  memscope-cli run --export both -- ./program arg     record; makes snapshot.json and report.html
  memscope-cli run cargo test                         programs that it starts are recorded, too
  memscope-cli report memscope-program-1234           totals and top call sites in the terminal
  memscope-cli analyze memscope-program-1234 out.html the report of a recording made earlier
  LD_PRELOAD=$(memscope-cli preload-path) ./program   by hand

Exit status of run: the program's own; 128+N when signal N killed it; 127 when it cannot be found, 126 when it \
cannot be run; 125 when memscope itself failed; 2 for wrong usage.";

/// What `run --help` says behind the options.
const AFTER_RUN_HELP: &str = "\
Examples:
  memscope-cli run ls -lR /usr/include
  memscope-cli run --export html -o rec -- ./server --port 80
  memscope-cli run --quiet --export none ./program; memscope-cli report memscope-program-*

Exit status: the program's own; 128+N when signal N killed it; 127 when it cannot be found, 126 when it cannot be \
run; 125 when memscope itself failed; 2 for wrong usage.";

/// What `preload-path --help` says.
const AFTER_PRELOAD_HELP: &str = "\
Example:
  LD_PRELOAD=$(memscope-cli preload-path) ./program && memscope-cli report memscope-program-*

Variables that the library reads:
  MEMSCOPE_OUTPUT         recording directory; %p pid and %e name of the first process  [memscope-%e-%p]
  MEMSCOPE_AUTO_EXPORT    1: export when the first process ends by return, exit or quick_exit  [off]
  MEMSCOPE_EXPORT_FORMAT  json, html, both  [json]
  MEMSCOPE_EXPORT_PATH    path of the export; the extension is added  [memscope_final_snapshot]
  MEMSCOPE_CLI            the memscope-cli that exports  [the one beside the library, or in PATH]
  MEMSCOPE_FOLLOW         0: do not record child processes  [1]
  MEMSCOPE_THREAD         0: no thread of ours in the program  [1]
  MEMSCOPE_QUIET          1: nothing on stderr but errors  [off]";

#[cfg(test)]
mod tests;
