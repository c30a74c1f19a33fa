//! The program: command line, configuration, backend, commands, report.
//!
//! What was typed ([`cli`]) is turned into what it means ([`session`]) before any command runs.
//! The only room that reads and writes the user's files outside `pretrained`, and the only one with `anyhow`.

pub mod assembly;
pub mod backend;
pub mod budget;
pub mod cli;
pub mod commands;
pub mod comparison;
pub mod config;
pub mod exhibition;
pub mod failure;
pub mod files;
pub mod golden;
pub mod output;
pub mod pictures;
pub mod pool;
pub mod report;
pub mod session;
pub mod tuning;

use std::process::ExitCode;

use clap::Parser;

/// Runs the program on the process's arguments. 0: done; 1: failed; 2: used wrongly; 75: interrupted after saving.
pub fn main() -> ExitCode {
    failure::install_hook();
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are "errors" with exit code 0; a closed pipe is not worth a word.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    output::start_logging(cli.global.quiet);
    pool::in_pool(None, || {
        failure::guard(|| {
            let session = session::Session::new(&cli.global)?;
            commands::run(&cli.command, &session)
        })
    })
}
