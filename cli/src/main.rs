//! `memscope-cli`: runs a program with the recorder in it, and makes reports of what was recorded.

mod args;
mod error;
mod exit_codes;
mod output;

use std::process::ExitCode;

fn main() -> ExitCode {
    match args::parse(std::env::args_os()) {
        Ok(args::Parsed::Text(text)) => text.exit(),
        Ok(args::Parsed::Command(_)) => exit_codes::ExitCode::Failed.into(),
        Err(error) => {
            output::say_error(&error);
            error.exit_code().into()
        }
    }
}
