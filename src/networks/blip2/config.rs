//! Configuration of BLIP-2, read from the hub's `config.json`. Unknown keys are allowed; a key that transformers gives a
//! default may be absent and then means that default (Blip2Config, Blip2VisionConfig, Blip2QFormerConfig, OPTConfig).
//! T5's part is in [`super::t5`].

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::language::TextConfig;
use crate::nn::activation::Activation;

/// A configuration no network can be built from.
#[derive(Debug, Error, PartialEq)]
#[error("BLIP-2 configuration, {key}: expected {expected}, found {found}")]
pub struct Blip2ConfigError {
    /// The key, with its section.
    pub key: String,
    /// What would have been accepted.
    pub expected: String,
    /// What stands there.
    pub found: String,
}

impl Blip2ConfigError {
    pub(super) fn new(key: &str, expected: impl Into<String>, found: impl ToString) -> Self {
        Self {
            key: key.into(),
            expected: expected.into(),
            found: found.to_string(),
        }
    }
}

/// BLIP-2: image encoder, Q-Former and language model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Blip2Config {
    pub vision_config: Blip2VisionConfig,
    pub qformer_config: Blip2QFormerConfig,
    pub text_config: TextConfig,
    /// Learned queries per image, and so the image positions the language model sees.
    #[serde(default = "default_num_query_tokens")]
    pub num_query_tokens: usize,
    /// The token that holds the place of one image position. Files made before transformers 4.46 lack it.
    #[serde(default, alias = "image_token_id")]
    pub image_token_index: Option<u32>,
    #[serde(default = "default_initializer_range")]
    pub initializer_range: f64,
    #[serde(default = "default_model_type")]
    pub model_type: String,
}

/// The vision tower (ViT with one matrix for query, key and value).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Blip2VisionConfig {
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    /// Side of the square input, in pixels.
    pub image_size: usize,
    pub patch_size: usize,
    pub hidden_act: Activation,
    pub layer_norm_eps: f64,
    pub qkv_bias: bool,
}

impl Default for Blip2VisionConfig {
    fn default() -> Self {
        Self {
            hidden_size: 1408,
            intermediate_size: 6144,
            num_hidden_layers: 39,
            num_attention_heads: 16,
            image_size: 224,
            patch_size: 14,
            hidden_act: Activation::Gelu,
            layer_norm_eps: 1e-6,
            qkv_bias: true,
        }
    }
}

impl Blip2VisionConfig {
    /// Patches and the class token.
    pub fn num_positions(&self) -> usize {
        (self.image_size / self.patch_size).pow(2) + 1
    }
}

/// The Q-Former.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Blip2QFormerConfig {
    pub hidden_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub intermediate_size: usize,
    pub hidden_act: Activation,
    pub layer_norm_eps: f64,
    /// Layers 0, n, 2n, … look at the image.
    pub cross_attention_frequency: usize,
    pub use_qformer_text_input: bool,
    pub model_type: String,
}

impl Default for Blip2QFormerConfig {
    fn default() -> Self {
        Self {
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            hidden_act: Activation::Gelu,
            layer_norm_eps: 1e-12,
            cross_attention_frequency: 2,
            use_qformer_text_input: false,
            model_type: "blip_2_qformer".into(),
        }
    }
}

/// The OPT decoder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct OptConfig {
    pub model_type: String,
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub ffn_dim: usize,
    pub max_position_embeddings: usize,
    /// Norms before attention and feed-forward (all OPT models but opt-350m).
    pub do_layer_norm_before: bool,
    #[serde(rename = "_remove_final_layer_norm")]
    pub remove_final_layer_norm: bool,
    /// Width of the word embeddings; the decoder's own when absent.
    pub word_embed_proj_dim: Option<usize>,
    pub activation_function: Activation,
    pub enable_bias: bool,
    pub layer_norm_elementwise_affine: bool,
    pub tie_word_embeddings: bool,
    pub pad_token_id: Option<u32>,
    pub bos_token_id: Option<u32>,
    pub eos_token_id: Option<TokenIds>,
}

impl Default for OptConfig {
    fn default() -> Self {
        Self {
            model_type: "opt".into(),
            vocab_size: 50272,
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            ffn_dim: 3072,
            max_position_embeddings: 2048,
            do_layer_norm_before: true,
            remove_final_layer_norm: false,
            word_embed_proj_dim: None,
            activation_function: Activation::Relu,
            enable_bias: true,
            layer_norm_elementwise_affine: true,
            tie_word_embeddings: true,
            pad_token_id: Some(1),
            bos_token_id: Some(2),
            eos_token_id: Some(TokenIds::One(2)),
        }
    }
}

impl OptConfig {
    /// Width of the word embeddings.
    pub fn word_width(&self) -> usize {
        self.word_embed_proj_dim.unwrap_or(self.hidden_size)
    }

    fn validate(&self) -> Result<(), Blip2ConfigError> {
        divides("text_config", self.hidden_size, self.num_attention_heads)?;
        for (key, value) in [
            ("text_config.vocab_size", self.vocab_size),
            ("text_config.ffn_dim", self.ffn_dim),
            ("text_config.word_embed_proj_dim", self.word_width()),
        ] {
            if value == 0 {
                return Err(Blip2ConfigError::new(key, "at least 1", value));
            }
        }
        Ok(())
    }
}

fn divides(section: &str, width: usize, heads: usize) -> Result<(), Blip2ConfigError> {
    if heads == 0 || width == 0 || !width.is_multiple_of(heads) {
        let key = format!("{section}.num_attention_heads");
        let expected = format!("a divisor of the width {width}");
        return Err(Blip2ConfigError::new(&key, expected, heads));
    }
    Ok(())
}

/// One token id or several, as the hub writes `eos_token_id`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TokenIds {
    One(u32),
    Many(Vec<u32>),
}

impl From<TokenIds> for Vec<u32> {
    fn from(ids: TokenIds) -> Self {
        match ids {
            TokenIds::One(id) => vec![id],
            TokenIds::Many(ids) => ids,
        }
    }
}

impl Blip2Config {
    /// Whether a network can be built: every width splits into its heads, every special token is in the vocabulary.
    ///
    /// # Errors
    /// The first key that stands in the way.
    pub fn validate(&self) -> Result<(), Blip2ConfigError> {
        let (vision, qformer, text) =
            (&self.vision_config, &self.qformer_config, &self.text_config);
        divides(
            "vision_config",
            vision.hidden_size,
            vision.num_attention_heads,
        )?;
        divides(
            "qformer_config",
            qformer.hidden_size,
            qformer.num_attention_heads,
        )?;
        match text {
            TextConfig::Opt(config) => config.validate()?,
            TextConfig::T5(config) => config.validate()?,
        }
        let positive = [
            ("vision_config.patch_size", vision.patch_size),
            ("vision_config.intermediate_size", vision.intermediate_size),
            (
                "qformer_config.intermediate_size",
                qformer.intermediate_size,
            ),
            (
                "qformer_config.cross_attention_frequency",
                qformer.cross_attention_frequency,
            ),
            ("num_query_tokens", self.num_query_tokens),
        ];
        for (key, value) in positive {
            if value == 0 {
                return Err(Blip2ConfigError::new(key, "at least 1", value));
            }
        }
        if vision.image_size < vision.patch_size {
            let expected = format!("at least one patch of {} pixels", vision.patch_size);
            return Err(Blip2ConfigError::new(
                "vision_config.image_size",
                expected,
                vision.image_size,
            ));
        }
        let limit = text.max_positions();
        if let Some(limit) = limit.filter(|limit| self.num_query_tokens >= *limit) {
            let expected = format!("less than the text positions, {limit}");
            return Err(Blip2ConfigError::new(
                "num_query_tokens",
                expected,
                self.num_query_tokens,
            ));
        }
        let mut tokens: Vec<(&str, u32)> = Vec::new();
        tokens.extend(self.image_token_index.map(|id| ("image_token_index", id)));
        tokens.extend(text.pad_token().map(|id| ("text_config.pad_token_id", id)));
        tokens.extend(
            text.start_token()
                .map(|id| ("text_config.bos_token_id", id)),
        );
        if let TextConfig::T5(config) = text {
            let start = config.decoder_start_token_id;
            tokens.extend(start.map(|id| ("text_config.decoder_start_token_id", id)));
        }
        tokens.extend(
            text.end_tokens()
                .into_iter()
                .map(|id| ("text_config.eos_token_id", id)),
        );
        for (key, id) in tokens {
            if id as usize >= text.vocab_size() {
                let expected = format!("an id below the vocabulary's size {}", text.vocab_size());
                return Err(Blip2ConfigError::new(key, expected, id));
            }
        }
        Ok(())
    }
}

fn default_num_query_tokens() -> usize {
    32
}

fn default_initializer_range() -> f64 {
    0.02
}

fn default_model_type() -> String {
    "blip-2".into()
}
