//! Run configuration: one TOML is one run.
//!
//! Each room owns its part; [`RunConfig`] puts them together, one section per room. Unknown keys are refused
//! with the nearest known one, values are checked with a reason, and the resolved whole is saved beside each
//! result, so that running the saved file repeats the run.

mod reading;
mod sections;

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::baselines::BaselinesConfig;
use crate::data::stickers::StickerOptions;
use crate::generation::keywords::KeywordConfig;
use crate::generation::preference::PreferenceConfig;
use crate::preparation::PreparationConfig;
use crate::reflection::ReflectionConfig;
use crate::retrieval::RetrievalConfig;
use crate::text::prompt::PromptConfig;
use crate::training::preference::TrainingConfig;

pub use reading::{ConfigError, Origin};
pub use sections::{
    DataConfig, EvaluationConfig, FeaturesConfig, InferenceConfig, ModelsConfig, NetworkDtype,
    PretrainConfig, RankingConfig, Resampled,
};

/// Sections that `prepare`, `rank`, `train`, `generate`, `eval` and `demo` read between them.
pub const METHOD: &[&str] = &[
    "data",
    "models",
    "ranking",
    "retrieval",
    "prompts",
    "keywords",
    "features",
    "preparation",
    "preference",
    "reflection",
    "training",
    "inference",
    "evaluation",
    "baselines",
];

/// A whole run.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RunConfig {
    /// The data folder.
    pub data: DataConfig,
    /// Folders of the frozen networks.
    pub models: ModelsConfig,
    /// The ranking model and its training.
    pub ranking: RankingConfig,
    /// Which history items matter (paper Sec. 3.1).
    pub retrieval: RetrievalConfig,
    /// Prompts of the language model.
    pub prompts: PromptConfig,
    /// Keywords of items and users.
    pub keywords: KeywordConfig,
    /// Captions and embeddings.
    pub features: FeaturesConfig,
    /// How samples are put into words.
    pub preparation: PreparationConfig,
    /// What is trained: adapter, mapper, fusion (paper Sec. 3.2).
    pub preference: PreferenceConfig,
    /// Exploration, reward, losses (paper Sec. 3.3).
    pub reflection: ReflectionConfig,
    /// The training loop.
    pub training: TrainingConfig,
    /// Drawing after training.
    pub inference: InferenceConfig,
    /// Scores.
    pub evaluation: EvaluationConfig,
    /// The trained methods beside RAGAR.
    pub baselines: BaselinesConfig,
    /// Building of the sticker data.
    pub stickers: StickerOptions,
    /// Training of the tiny family.
    pub pretrain: PretrainConfig,
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
        fn within<E: ToString>(section: &str, checked: Result<(), E>) -> Result<(), String> {
            checked.map_err(|error| format!("[{section}] {}", error.to_string()))
        }
        within("ranking.model", self.ranking.model.validate())?;
        within("ranking.training", self.ranking.training.validate())?;
        within("retrieval", self.retrieval.validate())?;
        within("prompts", self.prompts.validate())?;
        within("features.caption", self.features.caption.validate())?;
        within("preparation", self.preparation.validate())?;
        within("preference", self.preference.validate())?;
        within("reflection", self.reflection.validate())?;
        within("training", self.training.validate())?;
        within("inference", self.inference.validate())?;
        within("evaluation", self.evaluation.validate())?;
        within("baselines", self.baselines.validate())?;
        within("stickers", self.stickers.validate())?;
        within("pretrain.clip", self.pretrain.clip.validate())?;
        within("pretrain.captioner", self.pretrain.captioner.validate())?;
        within(
            "pretrain.captioner.trainer",
            self.pretrain.captioner.trainer.validate(),
        )?;
        within("pretrain.llm", self.pretrain.llm.validate())?;
        within("pretrain.vae", self.pretrain.vae.augmentation.validate())?;
        within("pretrain.vae.trainer", self.pretrain.vae.trainer.validate())?;
        within("pretrain.unet", self.pretrain.unet.validate())?;
        let recognisers = [
            ("pretrain.glyph_recogniser", &self.pretrain.glyph_recogniser),
            ("pretrain.style_recogniser", &self.pretrain.style_recogniser),
        ];
        for (section, recogniser) in recognisers {
            within(section, recogniser.validate())?;
            within(&format!("{section}.trainer"), recogniser.trainer.validate())?;
        }
        within(
            "pretrain.unet.trainer",
            self.pretrain.unet.trainer.validate(),
        )
    }

    /// The resolved configuration of one command as TOML: the sections it reads, `pretrain.vae` for one within another.
    ///
    /// # Errors
    /// When a value has no form in TOML.
    pub fn to_toml(&self, sections: &[&str]) -> Result<String, toml::ser::Error> {
        // Through text, so that an f32 of 0.1 stays 0.1.
        let all: toml::Table = toml::from_str(&toml::to_string(self)?).unwrap_or_default();
        let mut kept = toml::Table::new();
        for section in sections {
            copy(&all, &mut kept, section);
        }
        toml::to_string_pretty(&kept)
    }

    /// Writes the sections that `command` read to `folder/config.toml`; running it again repeats the run.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, folder: &Path, command: &str, sections: &[&str]) -> anyhow::Result<()> {
        let text = format!(
            "# The resolved configuration of `ragar {command}`, version {}.\n# Again: ragar {command} --config {}\n\n{}",
            env!("CARGO_PKG_VERSION"),
            folder.join("config.toml").display(),
            self.to_toml(sections)?
        );
        super::files::write(&folder.join("config.toml"), text.as_bytes())
    }
}

/// Copies the section called `path`, dots going inwards.
fn copy(from: &toml::Table, to: &mut toml::Table, path: &str) {
    match path.split_once('.') {
        None => {
            if let Some(value) = from.get(path) {
                to.insert(path.to_string(), value.clone());
            }
        }
        Some((head, rest)) => {
            let inner = to
                .entry(head.to_string())
                .or_insert_with(|| toml::Table::new().into());
            if let (Some(from), Some(to)) = (
                from.get(head).and_then(toml::Value::as_table),
                inner.as_table_mut(),
            ) {
                copy(from, to, rest);
            }
        }
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
        assert_eq!(config.models.clip, std::path::Path::new("x/y"));
        config
            .save(
                folder.path(),
                "train",
                &["data", "models", "ranking", "pretrain.vae"],
            )
            .unwrap();
        let again = RunConfig::load(Some(&folder.path().join("config.toml")), &[]).unwrap();
        assert_eq!(again, config);
    }

    #[test]
    fn naming_one_key_leaves_its_neighbours_as_they_were() {
        let mut expected = RunConfig::default();
        expected.pretrain.unet.trainer.steps = 7;
        assert_ne!(expected.pretrain.unet.trainer.optimizer, Default::default());
        let argument = "pretrain.unet.trainer.steps=7";
        assert_eq!(load_text("", &[argument]).unwrap(), expected);
        let file = "[pretrain.unet.trainer]\nsteps = 7\n";
        assert_eq!(load_text(file, &[]).unwrap(), expected);
    }

    #[test]
    fn pictures_that_cannot_be_changed_as_asked_are_refused_before_a_run() {
        for (argument, section) in [
            ("pretrain.clip.augmentation.flip=2", "pretrain.clip"),
            (
                "pretrain.captioner.augmentation.erase=-1",
                "pretrain.captioner",
            ),
            (
                "pretrain.style_recogniser.augmentation.shift=-1",
                "pretrain.style_recogniser",
            ),
            ("pretrain.vae.augmentation.scale=[1.1, 0.9]", "pretrain.vae"),
            ("pretrain.unet.augmentation.unscaled=7", "pretrain.unet"),
        ] {
            let message = complaint("", &[argument]);
            let key = argument.split('=').next().unwrap_or_default();
            let key = key.trim_start_matches(section).trim_start_matches('.');
            assert!(message.contains(&format!("[{section}]")), "{message}");
            assert!(message.contains(&format!("`{key}`")), "{message}");
        }
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
        let message = complaint("", &["reflection.sigma=0"]);
        assert!(message.contains("[reflection] sigma"), "{message}");
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
