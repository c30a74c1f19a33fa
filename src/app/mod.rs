//! The program: command line, configuration, backend, commands, report.

pub mod backend;
pub mod cli;
pub mod commands;
pub mod config;
pub mod report;

use std::process::ExitCode;

/// Runs the program on the process's arguments.
pub fn main() -> ExitCode {
    ExitCode::SUCCESS
}
