//! What the command line means: a checked configuration, a device, an output.

use std::path::Path;

use super::backend::{self, DeviceError, Devices};
use super::cli::Global;
use super::config::{ConfigError, RunConfig};
use super::failure::Usage;
use super::output::Output;

/// What marks a folder of `ragar export`, and lists what is in it.
pub const BUNDLE: &str = "bundle.json";

/// Everything that a command needs beside its own arguments.
#[derive(Debug)]
pub struct Session {
    /// The resolved configuration: file, then `--set`.
    pub config: RunConfig,
    /// Where results go.
    pub output: Output,
    global: Global,
}

impl Session {
    /// Reads and checks the configuration.
    ///
    /// # Errors
    /// When the file cannot be read or a key or value in it or in `--set` is wrong.
    pub fn new(global: &Global) -> Result<Self, ConfigError> {
        Ok(Self {
            config: RunConfig::load(global.config.as_deref(), &set_of(global))?,
            output: Output {
                json: global.json,
                quiet: global.quiet,
            },
            global: global.clone(),
        })
    }

    /// The configuration of the finished run in `folder`, unless `--config` names another; `--set` still goes over it.
    /// In a bundle of `ragar export`, networks that lie in it are taken from there.
    ///
    /// # Errors
    /// As [`Session::new`].
    pub fn config_of(&self, folder: &Path) -> Result<RunConfig, ConfigError> {
        let saved = folder.join("config.toml");
        match &self.global.config {
            Some(_) => Ok(self.config.clone()),
            None => {
                let mut config = RunConfig::load(Some(&saved), &self.set())?;
                if folder.join(BUNDLE).is_file() {
                    config.models.take_from(folder);
                }
                Ok(config)
            }
        }
    }

    /// The configuration with `values` between the defaults and what was typed; a `--config` file replaces them.
    ///
    /// # Errors
    /// As [`Session::new`].
    pub fn config_over(&self, values: &[&str]) -> Result<RunConfig, ConfigError> {
        if self.global.config.is_some() {
            return Ok(self.config.clone());
        }
        let values = values.iter().map(ToString::to_string);
        RunConfig::load(None, &values.chain(self.set()).collect::<Vec<_>>())
    }

    fn set(&self) -> Vec<String> {
        set_of(&self.global)
    }

    /// The command line that does `command` with this session's configuration again.
    pub fn command_line(&self, command: &str) -> String {
        format!("ragar {command}{}", arguments(&self.global))
    }

    /// Opens the device asked for, or the default one.
    ///
    /// # Errors
    /// When its backend is not compiled in or its driver is missing.
    pub fn devices(&self) -> anyhow::Result<Devices> {
        let name = self
            .global
            .device
            .clone()
            .unwrap_or_else(backend::default_device);
        let devices = backend::open(&name).map_err(|error| match error {
            // A wrong name is a usage error; a missing driver is a failure.
            DeviceError::Unknown(_)
            | DeviceError::NoIndex { .. }
            | DeviceError::NotCompiled { .. }
            | DeviceError::VulkanInstead => anyhow::Error::from(Usage(error.to_string())),
            other => other.into(),
        })?;
        if let Some(sentence) = &devices.untuned {
            self.output.note(sentence);
        }
        Ok(devices)
    }
}

/// Values of `--set`, and the options that stand for one.
fn set_of(global: &Global) -> Vec<String> {
    let mut set = global.set.clone();
    if global.skip_bad {
        set.push("data.skip_bad=true".into());
    }
    set
}

/// Configuration arguments as they would be typed, with quotes where a shell needs them.
fn arguments(global: &Global) -> String {
    let quoted = |text: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=,:+".contains(c);
        match text.chars().all(plain) {
            true => text.to_string(),
            false => format!("'{}'", text.replace('\'', "'\\''")),
        }
    };
    let file = global.config.iter();
    let mut text: String = file
        .map(|path| format!(" --config {}", quoted(&path.display().to_string())))
        .collect();
    for set in &global.set {
        text += &format!(" --set {}", quoted(set));
    }
    if global.skip_bad {
        text += " --skip-bad";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_can_be_typed_again() {
        let global = Global {
            config: Some("configs/tiny.toml".into()),
            set: vec!["a.b=1".into(), "prompts.summary=it's {keywords}".into()],
            ..Global::default()
        };
        assert_eq!(
            arguments(&global),
            " --config configs/tiny.toml --set a.b=1 --set 'prompts.summary=it'\\''s {keywords}'"
        );
    }
}
