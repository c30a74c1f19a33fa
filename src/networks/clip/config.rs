//! CLIP's configuration, as the hub's `config.json` gives it: absent keys take transformers' defaults.

use serde::{Deserialize, Deserializer, Serialize};

use crate::nn::activation::Activation;

/// A configuration that describes no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{section}.{key} = {found}: {expected}")]
pub struct ClipConfigError {
    /// `text_config` or `vision_config`.
    pub section: &'static str,
    /// The key.
    pub key: &'static str,
    /// Its value.
    pub found: usize,
    /// What it must be.
    pub expected: String,
}

/// Both towers and the projections.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "ClipConfigFile")]
pub struct ClipConfig {
    /// The text tower.
    pub text_config: ClipTextConfig,
    /// The vision tower.
    pub vision_config: ClipVisionConfig,
    /// Width of the joint space.
    pub projection_dim: usize,
    /// Natural logarithm of the first temperature's inverse.
    pub logit_scale_init_value: f64,
}

impl Default for ClipConfig {
    fn default() -> Self {
        Self {
            text_config: ClipTextConfig::default(),
            vision_config: ClipVisionConfig::default(),
            projection_dim: 512,
            logit_scale_init_value: 2.6592,
        }
    }
}

impl ClipConfig {
    /// Checks that the sizes make a network.
    ///
    /// # Errors
    /// When a size is zero or does not divide as it must.
    pub fn validate(&self) -> Result<(), ClipConfigError> {
        self.text_config.validate()?;
        self.vision_config.validate()?;
        positive("clip", &[("projection_dim", self.projection_dim)])
    }
}

/// The file's form. Older files repeat a tower's settings under `…_config_dict`, which then win as a whole.
#[derive(Deserialize)]
struct ClipConfigFile {
    text_config: Option<ClipTextConfig>,
    text_config_dict: Option<ClipTextConfig>,
    vision_config: Option<ClipVisionConfig>,
    vision_config_dict: Option<ClipVisionConfig>,
    projection_dim: Option<usize>,
    logit_scale_init_value: Option<f64>,
}

impl From<ClipConfigFile> for ClipConfig {
    fn from(file: ClipConfigFile) -> Self {
        let default = Self::default();
        let text = file.text_config_dict.or(file.text_config);
        let vision = file.vision_config_dict.or(file.vision_config);
        Self {
            text_config: text.unwrap_or_default(),
            vision_config: vision.unwrap_or_default(),
            projection_dim: file.projection_dim.unwrap_or(default.projection_dim),
            logit_scale_init_value: file
                .logit_scale_init_value
                .unwrap_or(default.logit_scale_init_value),
        }
    }
}

/// The text tower (transformers' `CLIPTextConfig`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClipTextConfig {
    /// Number of tokens known.
    pub vocab_size: usize,
    /// Width of the states.
    pub hidden_size: usize,
    /// Width inside the feed-forward part.
    pub intermediate_size: usize,
    /// Width of the joint space, for a text tower that carries its own projection.
    pub projection_dim: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Number of attention heads.
    pub num_attention_heads: usize,
    /// Longest text, in tokens.
    pub max_position_embeddings: usize,
    /// Activation of the feed-forward part.
    pub hidden_act: Activation,
    /// Epsilon of the norms.
    pub layer_norm_eps: f64,
    /// The end token. 2 is the legacy rule: the token with the largest id ends the text.
    #[serde(deserialize_with = "one_or_first")]
    pub eos_token_id: u32,
}

impl Default for ClipTextConfig {
    fn default() -> Self {
        Self {
            vocab_size: 49408,
            hidden_size: 512,
            intermediate_size: 2048,
            projection_dim: 512,
            num_hidden_layers: 12,
            num_attention_heads: 8,
            max_position_embeddings: 77,
            hidden_act: Activation::QuickGelu,
            layer_norm_eps: 1e-5,
            eos_token_id: 49407,
        }
    }
}

impl ClipTextConfig {
    /// Checks that the sizes make a network.
    ///
    /// # Errors
    /// When a size is zero or does not divide as it must.
    pub fn validate(&self) -> Result<(), ClipConfigError> {
        positive(
            "text_config",
            &[
                ("vocab_size", self.vocab_size),
                ("hidden_size", self.hidden_size),
                ("intermediate_size", self.intermediate_size),
                ("max_position_embeddings", self.max_position_embeddings),
            ],
        )?;
        whole_heads("text_config", self.hidden_size, self.num_attention_heads)
    }
}

/// The vision tower (transformers' `CLIPVisionConfig`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClipVisionConfig {
    /// Width of the states.
    pub hidden_size: usize,
    /// Width inside the feed-forward part.
    pub intermediate_size: usize,
    /// Width of the joint space, for a vision tower that carries its own projection.
    pub projection_dim: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Number of attention heads.
    pub num_attention_heads: usize,
    /// Colour channels.
    pub num_channels: usize,
    /// Side of the square picture, in pixels.
    #[serde(deserialize_with = "one_or_first")]
    pub image_size: usize,
    /// Side of a square patch, in pixels.
    #[serde(deserialize_with = "one_or_first")]
    pub patch_size: usize,
    /// Activation of the feed-forward part.
    pub hidden_act: Activation,
    /// Epsilon of the norms.
    pub layer_norm_eps: f64,
}

impl Default for ClipVisionConfig {
    fn default() -> Self {
        Self {
            hidden_size: 768,
            intermediate_size: 3072,
            projection_dim: 512,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            num_channels: 3,
            image_size: 224,
            patch_size: 32,
            hidden_act: Activation::QuickGelu,
            layer_norm_eps: 1e-5,
        }
    }
}

impl ClipVisionConfig {
    /// Patches of a picture, and the class token.
    pub fn num_positions(&self) -> usize {
        (self.image_size / self.patch_size).pow(2) + 1
    }

    /// Checks that the sizes make a network.
    ///
    /// # Errors
    /// When a size is zero or does not divide as it must.
    pub fn validate(&self) -> Result<(), ClipConfigError> {
        let section = "vision_config";
        positive(
            section,
            &[
                ("hidden_size", self.hidden_size),
                ("intermediate_size", self.intermediate_size),
                ("num_channels", self.num_channels),
                ("patch_size", self.patch_size),
            ],
        )?;
        if self.image_size < self.patch_size {
            return Err(ClipConfigError {
                section,
                key: "image_size",
                found: self.image_size,
                expected: format!("must hold one patch of {} pixels", self.patch_size),
            });
        }
        whole_heads(section, self.hidden_size, self.num_attention_heads)
    }
}

fn positive(section: &'static str, sizes: &[(&'static str, usize)]) -> Result<(), ClipConfigError> {
    match sizes.iter().find(|(_, size)| *size == 0) {
        Some((key, found)) => Err(ClipConfigError {
            section,
            key,
            found: *found,
            expected: "must be positive".into(),
        }),
        None => Ok(()),
    }
}

fn whole_heads(section: &'static str, width: usize, heads: usize) -> Result<(), ClipConfigError> {
    if heads > 0 && width.is_multiple_of(heads) {
        return Ok(());
    }
    Err(ClipConfigError {
        section,
        key: "num_attention_heads",
        found: heads,
        expected: format!("must divide hidden_size = {width}"),
    })
}

/// A number, or the first of a list (newer files write squares and end tokens as lists).
fn one_or_first<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form<T> {
        One(T),
        Many(Vec<T>),
    }
    match Form::deserialize(deserializer)? {
        Form::One(value) => Ok(value),
        Form::Many(values) => values
            .into_iter()
            .next()
            .ok_or_else(|| serde::de::Error::custom("expected a number, found an empty list")),
    }
}
