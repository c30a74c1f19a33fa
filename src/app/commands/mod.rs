//! One file per subcommand. Each reads the session, calls the rooms below and reports.

mod devices;

use super::cli::Command;
use super::session::Session;

/// Does what was asked.
///
/// # Errors
/// Whatever the command met, with the file or key concerned.
pub fn run(command: &Command, session: &Session) -> anyhow::Result<()> {
    match command {
        Command::Devices => devices::run(session),
    }
}
