//! Run configuration: one TOML is one run.
//!
//! Each room owns its part; [`RunConfig`] puts them together, one section per room. Unknown keys are refused
//! with the nearest known one, values are checked with a reason, and the resolved whole is saved beside each
//! result, so that running the saved file repeats the run.

mod reading;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use reading::{ConfigError, Origin};

/// A whole run.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RunConfig {
    /// The data folder.
    pub data: DataConfig,
    /// Folders of the frozen networks.
    pub models: ModelsConfig,
}

/// `[data]`: what to personalise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataConfig {
    /// A data folder: `items.csv`, `interactions.csv`, `histories.jsonl`, `images/`.
    pub folder: PathBuf,
    /// Length of every history (paper: 20).
    pub history_length: usize,
    /// Skip and report bad items in place of stopping at the first.
    pub skip_bad: bool,
}

impl Default for DataConfig {
    fn default() -> Self {
        Self {
            folder: "assets/stickers".into(),
            history_length: 20,
            skip_bad: false,
        }
    }
}

/// `[models]`: Hugging Face folders.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelsConfig {
    /// CLIP: text and visual encoder of the retrieval and the metrics.
    pub clip: PathBuf,
    /// BLIP-2: captions.
    pub captioner: PathBuf,
    /// Llama: keywords and the preference prompt.
    pub language_model: PathBuf,
    /// Stable Diffusion: `unet`, `vae`, `scheduler`, `tokenizer`, `text_encoder`.
    pub generator: PathBuf,
}

impl Default for ModelsConfig {
    fn default() -> Self {
        Self {
            clip: "assets/models/tiny/clip".into(),
            captioner: "assets/models/tiny/blip2".into(),
            language_model: "assets/models/tiny/llm".into(),
            generator: "assets/models/tiny/diffusion".into(),
        }
    }
}

impl RunConfig {
    /// The configuration of `file` (defaults where it says nothing), with `section.key=value` arguments laid over it.
    ///
    /// # Errors
    /// Names the file and line, or the argument, and what is known instead.
    pub fn load(file: Option<&Path>, arguments: &[String]) -> Result<Self, ConfigError> {
        let config: Self = reading::read(file, arguments, &known_keys())?;
        config.validate().map_err(|message| ConfigError::Value {
            origin: file.map_or(Origin::Combined, |path| Origin::File {
                path: path.to_path_buf(),
                line: None,
            }),
            message,
        })?;
        Ok(config)
    }

    /// Checks values against their ranges and against each other.
    ///
    /// # Errors
    /// A sentence with the key, the value and the reason.
    pub fn validate(&self) -> Result<(), String> {
        if self.data.history_length == 0 {
            return Err(
                "data.history_length is 0: a preference needs at least one item (paper: 20)".into(),
            );
        }
        Ok(())
    }

    /// The resolved configuration as TOML.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string_pretty(self)
    }

    /// Writes the resolved configuration to `folder/config.toml`; running it again repeats the run.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, folder: &Path, command: &str) -> anyhow::Result<()> {
        let text = format!(
            "# Resolved configuration of: {command}\n# ragar {}\n\n{}",
            env!("CARGO_PKG_VERSION"),
            self.to_toml()?
        );
        super::files::write(&folder.join("config.toml"), text.as_bytes())
    }
}

/// Every key there is, from the defaults.
fn known_keys() -> toml::Table {
    toml::Table::try_from(RunConfig::default()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load_text(text: &str, arguments: &[&str]) -> Result<RunConfig, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("run.toml");
        std::fs::write(&file, text).unwrap();
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        RunConfig::load(Some(&file), &arguments)
    }

    fn complaint(text: &str, arguments: &[&str]) -> String {
        load_text(text, arguments).unwrap_err().to_string()
    }

    #[test]
    fn a_saved_configuration_repeats_the_run() {
        let folder = tempfile::tempdir().unwrap();
        let arguments = [
            "data.history_length=7".to_string(),
            "models.clip=x/y".into(),
        ];
        let config = RunConfig::load(None, &arguments).unwrap();
        assert_eq!(config.data.history_length, 7);
        assert_eq!(config.models.clip, PathBuf::from("x/y"));
        config.save(folder.path(), "ragar train").unwrap();
        let again = RunConfig::load(Some(&folder.path().join("config.toml")), &[]).unwrap();
        assert_eq!(again, config);
    }

    #[test]
    fn an_unknown_key_names_line_and_neighbour() {
        let message = complaint("[data]\n# a remark\nhistory_lenght = 3\n", &[]);
        assert!(message.contains("run.toml:3"), "{message}");
        assert!(
            message.contains("did you mean `data.history_length`"),
            "{message}"
        );
        let message = complaint("[date]\nfolder = 'x'\n", &[]);
        assert!(message.contains("run.toml:1"), "{message}");
        assert!(message.contains("did you mean `data`"), "{message}");
    }

    #[test]
    fn a_key_of_another_section_is_sent_there() {
        let message = complaint("[models]\nhistory_length = 3\n", &[]);
        assert!(message.contains("`data.history_length`"), "{message}");
    }

    #[test]
    fn scalars_outside_sections_are_refused() {
        let message = complaint("history_length = 3\n", &[]);
        assert!(message.contains("[data]"), "{message}");
    }

    #[test]
    fn types_and_ranges_are_checked() {
        let message = complaint("[data]\nhistory_length = 'many'\n", &[]);
        assert!(message.contains("run.toml:2"), "{message}");
        assert!(message.contains("data.history_length"), "{message}");
        let message = complaint("", &["data.history_length=0"]);
        assert!(message.contains("at least one item"), "{message}");
        let message = complaint("", &["data.history_length=-1"]);
        assert!(
            message.contains("--set data.history_length=-1"),
            "{message}"
        );
        let message = complaint("[data\n", &[]);
        assert!(message.contains("not valid TOML"), "{message}");
    }

    #[test]
    fn arguments_are_checked_like_files() {
        for wrong in ["nothing", "=3", "data.=3", ".x=3", "data.history_length"] {
            assert!(
                complaint("", &[wrong]).contains("section.key=value"),
                "{wrong}"
            );
        }
        let message = complaint("", &["history_length=3"]);
        assert!(message.contains("`data.history_length`"), "{message}");
        let message = complaint("", &["data.folder.deeper=3"]);
        assert!(message.contains("data.folder"), "{message}");
        let twice = load_text(
            "[data]\nhistory_length = 3\n",
            &["data.history_length=4", "data.history_length=5"],
        );
        assert_eq!(twice.unwrap().data.history_length, 5);
    }
}
