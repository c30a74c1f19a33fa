//! One file per subcommand. Each reads the session, calls the rooms below and reports.

mod data;
mod devices;
mod model;

use super::cli::{Command, DataCommand, ModelCommand};
use super::session::Session;

/// Does what was asked.
///
/// # Errors
/// Whatever the command met, with the file or key concerned.
pub fn run(command: &Command, session: &Session) -> anyhow::Result<()> {
    match command {
        Command::Data(DataCommand::Stickers { packages, out }) => {
            data::stickers(session, packages, out)
        }
        Command::Devices => devices::run(session),
        Command::Model(ModelCommand::Inspect { path, tensors }) => {
            model::inspect(session, path, *tensors)
        }
    }
}
