//! The language model: OPT continues image and prompt, T5 answers them.

use burn::module::Module;
use burn::tensor::{Int, Tensor, backend::Backend};
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::config::{Blip2ConfigError, OptConfig, TokenIds};
use super::opt::OptForCausalLm;
use super::t5::{T5Config, T5ForConditionalGeneration};

/// One of the two; the variants are no part of the checkpoint's names.
// One per network: its size does not matter, and a box is no module.
#[allow(clippy::large_enum_variant)]
#[derive(Module, Debug)]
pub enum LanguageModel<B: Backend> {
    /// A decoder alone.
    Opt(OptForCausalLm<B>),
    /// Encoder and decoder.
    T5(T5ForConditionalGeneration<B>),
}

impl<B: Backend> LanguageModel<B> {
    /// Word embeddings of `ids` `[rows, tokens]`.
    pub fn embed(&self, ids: Tensor<B, 2, Int>) -> Tensor<B, 3> {
        match self {
            Self::Opt(model) => model.embed(ids),
            Self::T5(model) => model.embed(ids),
        }
    }
}

/// The language model's configuration, told apart by `model_type` (`opt` when absent, as in the reference).
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum TextConfig {
    Opt(OptConfig),
    T5(T5Config),
}

impl TextConfig {
    /// `opt` or `t5`.
    pub fn model_type(&self) -> &'static str {
        match self {
            Self::Opt(_) => "opt",
            Self::T5(_) => "t5",
        }
    }

    /// Words with an embedding.
    pub fn vocab_size(&self) -> usize {
        match self {
            Self::Opt(config) => config.vocab_size,
            Self::T5(config) => config.vocab_size,
        }
    }

    /// Width of the states.
    pub fn hidden_size(&self) -> usize {
        match self {
            Self::Opt(config) => config.hidden_size,
            Self::T5(config) => config.d_model,
        }
    }

    /// Layers, T5's encoder's and decoder's together.
    pub fn num_layers(&self) -> usize {
        match self {
            Self::Opt(config) => config.num_hidden_layers,
            Self::T5(config) => config.num_layers + config.decoder_layers(),
        }
    }

    /// Most tokens of prompt and answer; T5 has no limit.
    pub fn max_positions(&self) -> Option<usize> {
        match self {
            Self::Opt(config) => Some(config.max_position_embeddings),
            Self::T5(_) => None,
        }
    }

    /// The token that pads.
    pub fn pad_token(&self) -> Option<u32> {
        match self {
            Self::Opt(config) => config.pad_token_id,
            Self::T5(config) => config.pad_token_id,
        }
    }

    /// The token that a prompt starts with.
    pub fn start_token(&self) -> Option<u32> {
        match self {
            Self::Opt(config) => config.bos_token_id,
            Self::T5(config) => config.bos_token_id,
        }
    }

    /// The token that T5's answers start with; OPT has no such token.
    pub fn decoder_start(&self) -> Option<u32> {
        match self {
            Self::Opt(_) => None,
            Self::T5(config) => config.start_token(),
        }
    }

    /// The tokens that end a text; empty when the configuration names none.
    pub fn end_tokens(&self) -> Vec<u32> {
        let ends = match self {
            Self::Opt(config) => &config.eos_token_id,
            Self::T5(config) => &config.eos_token_id,
        };
        ends.clone().map(Vec::from).unwrap_or_default()
    }

    /// Puts other end tokens in place.
    pub fn set_end_tokens(&mut self, ends: TokenIds) {
        match self {
            Self::Opt(config) => config.eos_token_id = Some(ends),
            Self::T5(config) => config.eos_token_id = Some(ends),
        }
    }

    /// Whether the head is the transposed word embedding.
    pub fn ties_head(&self) -> bool {
        match self {
            Self::Opt(config) => config.tie_word_embeddings,
            Self::T5(config) => config.ties_head(),
        }
    }

    /// Settles whether the head is the transposed word embedding, and nothing else: T5's scaling, which may follow
    /// from the same key, stays.
    pub fn set_tied_head(&mut self, tied: bool) {
        match self {
            Self::Opt(config) => config.tie_word_embeddings = tied,
            Self::T5(config) => {
                config.scale_decoder_outputs = Some(config.scales_outputs());
                config.tie_word_embeddings = Some(tied);
            }
        }
    }

    pub(super) fn init<B: Backend>(
        &self,
        initializer_range: f64,
        device: &B::Device,
    ) -> Result<LanguageModel<B>, Blip2ConfigError> {
        Ok(match self {
            Self::Opt(config) => LanguageModel::Opt(config.init(initializer_range, device)),
            Self::T5(config) => LanguageModel::T5(config.init(device)?),
        })
    }
}

impl From<OptConfig> for TextConfig {
    fn from(config: OptConfig) -> Self {
        Self::Opt(config)
    }
}

impl From<T5Config> for TextConfig {
    fn from(config: T5Config) -> Self {
        Self::T5(config)
    }
}

impl<'de> Deserialize<'de> for TextConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        match value.get("model_type").map_or(Some("opt"), Value::as_str) {
            Some("opt") => section(value).map(Self::Opt),
            Some("t5") => section(value).map(Self::T5),
            found => Err(D::Error::custom(Blip2ConfigError::new(
                "text_config.model_type",
                "opt or t5",
                found.unwrap_or("something that is no text"),
            ))),
        }
    }
}

/// The whole section as one type; the error names the key, which the way through [`Value`] would lose.
fn section<T: DeserializeOwned, E: Error>(value: Value) -> Result<T, E> {
    serde_path_to_error::deserialize(value)
        .map_err(|error| E::custom(format!("text_config.{}: {}", error.path(), error.inner())))
}
