//! Sections that no room below owns: folders, and groupings of several rooms' settings.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::pretraining::vae::VaePretrainingConfig;
use crate::recommender::MicroConfig;
use crate::training::recommender::RecommenderTrainingConfig;

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

impl DataConfig {
    /// # Errors
    /// A sentence that names the key.
    pub fn validate(&self) -> Result<(), String> {
        if self.history_length == 0 {
            return Err(
                "history_length = 0: a preference needs at least one item (paper: 20)".into(),
            );
        }
        Ok(())
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

/// `[ranking]`: MICRO.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RankingConfig {
    /// `[ranking.model]`: its shape and the weights of its losses.
    pub model: MicroConfig,
    /// `[ranking.training]`: how it is trained.
    pub training: RecommenderTrainingConfig,
}

/// `[pretrain]`: how each network of the tiny family is trained.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PretrainConfig {
    /// `[pretrain.vae]`: the autoencoder.
    pub vae: VaePretrainingConfig,
}
