//! `config.json` of a Llama checkpoint, from any version of `transformers`.

use serde::{Deserialize, Deserializer, Serialize};

use crate::nn::rotary::RotaryScaling;

/// The architecture, under the hub's own names. Unknown keys are allowed, as the hub's files carry many.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LlamaConfig {
    /// Always `llama`; written for readers of the saved folder.
    #[serde(default = "model_type")]
    pub model_type: String,
    /// Entries of the vocabulary.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width inside the feed-forward.
    pub intermediate_size: usize,
    /// Decoder layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads; as many as query heads when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub num_key_value_heads: Option<usize>,
    /// Width of a head; `hidden_size / num_attention_heads` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head_dim: Option<usize>,
    /// Only `silu` exists among Llama checkpoints.
    #[serde(default = "silu")]
    pub hidden_act: String,
    /// Longest sequence the model was trained on, in tokens.
    #[serde(default = "max_position_embeddings")]
    pub max_position_embeddings: usize,
    /// Added under the root of the RMS norms.
    #[serde(default = "rms_norm_eps")]
    pub rms_norm_eps: f64,
    /// Standard deviation of fresh weights.
    #[serde(default = "initializer_range")]
    pub initializer_range: f64,
    /// Whether the output layer is the embedding table.
    #[serde(default)]
    pub tie_word_embeddings: bool,
    /// Biases in the attention projections.
    #[serde(default)]
    pub attention_bias: bool,
    /// Biases in the feed-forward projections.
    #[serde(default)]
    pub mlp_bias: bool,
    /// Base of the rotary frequencies in published files; newer ones put it into `rope_parameters`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rope_theta: Option<f64>,
    /// Long-context scaling in published files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rope_scaling: Option<RopeParameters>,
    /// Base and scaling in newer files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rope_parameters: Option<RopeParameters>,
    /// Start token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bos_token_id: Option<u32>,
    /// End tokens: the hub writes one number or a list.
    #[serde(default, deserialize_with = "one_or_many")]
    pub eos_token_id: Vec<u32>,
    /// Padding token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pad_token_id: Option<u32>,
}

fn model_type() -> String {
    "llama".into()
}

fn silu() -> String {
    "silu".into()
}

fn max_position_embeddings() -> usize {
    2048
}

fn rms_norm_eps() -> f64 {
    1e-6
}

fn initializer_range() -> f64 {
    0.02
}

/// `eos_token_id` of `generation_config.json`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct GenerationEnds {
    /// End tokens, none where the file names none.
    #[serde(deserialize_with = "some_of_one_or_many")]
    pub eos_token_id: Option<Vec<u32>>,
}

fn some_of_one_or_many<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<u32>>, D::Error> {
    one_or_many(deserializer).map(|ends| Some(ends).filter(|ends| !ends.is_empty()))
}

fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u32>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Tokens {
        One(u32),
        Many(Vec<u32>),
    }
    Ok(match Option::<Tokens>::deserialize(deserializer)? {
        None => Vec::new(),
        Some(Tokens::One(token)) => vec![token],
        Some(Tokens::Many(tokens)) => tokens,
    })
}

/// Rotary embeddings as `rope_scaling` or `rope_parameters` state them.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RopeParameters {
    /// `default`, `linear` or `llama3`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rope_type: Option<String>,
    /// The same in older files. Some hold both keys.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub former_type: Option<String>,
    /// Base of the frequencies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rope_theta: Option<f64>,
    /// How many times longer the context is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub factor: Option<f64>,
    /// `llama3` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub low_freq_factor: Option<f64>,
    /// `llama3` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub high_freq_factor: Option<f64>,
    /// `llama3` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub original_max_position_embeddings: Option<usize>,
}

/// A configuration that this code cannot build.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum LlamaConfigError {
    /// A count that must be positive.
    #[error("`{field}` is 0; it must be at least 1")]
    Zero {
        /// The key of `config.json`.
        field: &'static str,
    },
    /// Sizes that do not divide.
    #[error("`{field}` is {found}, which {of} does not divide")]
    NotDivisible {
        /// The key of `config.json`.
        field: &'static str,
        /// Its value.
        found: usize,
        /// The divisor, named.
        of: String,
    },
    /// An architecture variant that is not implemented.
    #[error("`{field}` is `{found}`; supported: {supported}")]
    Unsupported {
        /// The key of `config.json`.
        field: &'static str,
        /// Its value.
        found: String,
        /// What would do.
        supported: &'static str,
    },
    /// A key that the rotary type needs.
    #[error("rope type `{rope_type}` needs `{field}`")]
    MissingRope {
        /// The rotary type.
        rope_type: String,
        /// The missing key.
        field: &'static str,
    },
}

impl LlamaConfig {
    /// Key and value heads.
    pub fn num_key_value_heads(&self) -> usize {
        self.num_key_value_heads.unwrap_or(self.num_attention_heads)
    }

    /// Width of a head.
    pub fn head_dim(&self) -> usize {
        self.head_dim
            .unwrap_or(self.hidden_size / self.num_attention_heads)
    }

    /// Base of the rotary frequencies.
    pub fn rope_theta(&self) -> f64 {
        [&self.rope_parameters, &self.rope_scaling]
            .into_iter()
            .find_map(|parameters| parameters.as_ref()?.rope_theta)
            .or(self.rope_theta)
            .unwrap_or(10_000.0)
    }

    /// Long-context scaling of the rotary frequencies.
    ///
    /// # Errors
    /// When the type is not implemented or lacks a number.
    pub fn rope_scaling(&self) -> Result<RotaryScaling, LlamaConfigError> {
        let Some(parameters) = self.rope_parameters.as_ref().or(self.rope_scaling.as_ref()) else {
            return Ok(RotaryScaling::None);
        };
        let rope_type = parameters.rope_type.as_deref();
        let rope_type = rope_type
            .or(parameters.former_type.as_deref())
            .unwrap_or("default");
        let needed = |value: Option<f64>, field| {
            value.ok_or_else(|| LlamaConfigError::MissingRope {
                rope_type: rope_type.into(),
                field,
            })
        };
        match rope_type {
            "default" => Ok(RotaryScaling::None),
            "linear" => Ok(RotaryScaling::Linear {
                factor: needed(parameters.factor, "factor")?,
            }),
            "llama3" => Ok(RotaryScaling::Llama3 {
                factor: needed(parameters.factor, "factor")?,
                low_freq_factor: needed(parameters.low_freq_factor, "low_freq_factor")?,
                high_freq_factor: needed(parameters.high_freq_factor, "high_freq_factor")?,
                original_context: parameters
                    .original_max_position_embeddings
                    .unwrap_or(self.max_position_embeddings),
            }),
            other => Err(LlamaConfigError::Unsupported {
                field: "rope_type",
                found: other.into(),
                supported: "default, linear, llama3",
            }),
        }
    }

    /// Checks that the network can be built.
    ///
    /// # Errors
    /// Names the first key that is wrong.
    pub fn validate(&self) -> Result<(), LlamaConfigError> {
        let counts = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.num_key_value_heads()),
        ];
        if let Some((field, _)) = counts.into_iter().find(|(_, count)| *count == 0) {
            return Err(LlamaConfigError::Zero { field });
        }
        if self.head_dim.is_none() && !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            return Err(LlamaConfigError::NotDivisible {
                field: "hidden_size",
                found: self.hidden_size,
                of: format!("num_attention_heads ({})", self.num_attention_heads),
            });
        }
        if !self
            .num_attention_heads
            .is_multiple_of(self.num_key_value_heads())
        {
            return Err(LlamaConfigError::NotDivisible {
                field: "num_attention_heads",
                found: self.num_attention_heads,
                of: format!("num_key_value_heads ({})", self.num_key_value_heads()),
            });
        }
        if self.head_dim() == 0 || !self.head_dim().is_multiple_of(2) {
            return Err(LlamaConfigError::NotDivisible {
                field: "head_dim",
                found: self.head_dim(),
                of: "2 (rotary halves)".into(),
            });
        }
        if self.hidden_act != "silu" {
            return Err(LlamaConfigError::Unsupported {
                field: "hidden_act",
                found: self.hidden_act.clone(),
                supported: "silu",
            });
        }
        self.rope_scaling().map(|_| ())
    }
}
