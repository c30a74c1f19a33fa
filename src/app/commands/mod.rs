//! One file per subcommand. Each reads the session, calls the rooms below and reports.

mod devices;
mod model;

use super::cli::{Command, ModelCommand};
use super::session::Session;

/// Does what was asked.
///
/// # Errors
/// Whatever the command met, with the file or key concerned.
pub fn run(command: &Command, session: &Session) -> anyhow::Result<()> {
    match command {
        Command::Devices => devices::run(session),
        Command::Model(ModelCommand::Inspect { path, tensors }) => {
            model::inspect(session, path, *tensors)
        }
    }
}
