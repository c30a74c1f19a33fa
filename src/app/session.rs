//! What the command line means: a checked configuration, a device, an output.

use super::backend::{self, DeviceError, Devices};
use super::cli::Global;
use super::config::{ConfigError, RunConfig};
use super::failure::Usage;
use super::output::Output;

/// Everything that a command needs beside its own arguments.
#[derive(Debug)]
pub struct Session {
    /// The resolved configuration: file, then `--set`.
    pub config: RunConfig,
    /// Where results go.
    pub output: Output,
    device: Option<String>,
}

impl Session {
    /// Reads and checks the configuration.
    ///
    /// # Errors
    /// When the file cannot be read or a key or value in it or in `--set` is wrong.
    pub fn new(global: &Global) -> Result<Self, ConfigError> {
        Ok(Self {
            config: RunConfig::load(global.config.as_deref(), &global.set)?,
            output: Output {
                json: global.json,
                quiet: global.quiet,
            },
            device: global.device.clone(),
        })
    }

    /// Opens the device asked for, or the default one.
    ///
    /// # Errors
    /// When its backend is not compiled in or its driver is missing.
    pub fn devices(&self) -> anyhow::Result<Devices> {
        let name = self.device.clone().unwrap_or_else(backend::default_device);
        backend::open(&name).map_err(|error| match error {
            // A wrong name is a usage error; a missing driver is a failure.
            DeviceError::Unknown(_)
            | DeviceError::NoIndex { .. }
            | DeviceError::NotCompiled { .. }
            | DeviceError::VulkanInstead => Usage(error.to_string()).into(),
            other => other.into(),
        })
    }
}
