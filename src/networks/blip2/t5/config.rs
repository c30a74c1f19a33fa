//! Configuration of the T5 part, as `text_config` of the hub's file has it (transformers' T5Config and its defaults).

use serde::{Deserialize, Serialize};

use crate::networks::blip2::config::{Blip2ConfigError, TokenIds};
use crate::nn::activation::Activation;

/// T5 (Flan-T5 in the published checkpoints).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct T5Config {
    pub model_type: String,
    pub vocab_size: usize,
    /// Width of the states.
    pub d_model: usize,
    /// Width of one head; not `d_model / num_heads` in general.
    pub d_kv: usize,
    /// Width inside the feed-forward part.
    pub d_ff: usize,
    /// Encoder layers.
    pub num_layers: usize,
    /// Decoder layers; as many as the encoder's when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_decoder_layers: Option<usize>,
    pub num_heads: usize,
    pub relative_attention_num_buckets: usize,
    /// Distances from here on share one bucket.
    pub relative_attention_max_distance: usize,
    pub layer_norm_epsilon: f64,
    /// `relu`, `gated-gelu`, …: an activation, gated or not.
    pub feed_forward_proj: String,
    /// The activation itself, which wins over `feed_forward_proj`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dense_act_fn: Option<Activation>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_gated_act: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tie_word_embeddings: Option<bool>,
    /// Whether states are divided by √`d_model` before the head; when absent, whether the embeddings are tied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale_decoder_outputs: Option<bool>,
    pub decoder_start_token_id: Option<u32>,
    pub pad_token_id: Option<u32>,
    pub bos_token_id: Option<u32>,
    pub eos_token_id: Option<TokenIds>,
}

impl Default for T5Config {
    fn default() -> Self {
        Self {
            model_type: "t5".into(),
            vocab_size: 32128,
            d_model: 512,
            d_kv: 64,
            d_ff: 2048,
            num_layers: 6,
            num_decoder_layers: None,
            num_heads: 8,
            relative_attention_num_buckets: 32,
            relative_attention_max_distance: 128,
            layer_norm_epsilon: 1e-6,
            feed_forward_proj: "relu".into(),
            dense_act_fn: None,
            is_gated_act: None,
            tie_word_embeddings: None,
            scale_decoder_outputs: None,
            decoder_start_token_id: None,
            pad_token_id: Some(0),
            bos_token_id: None,
            eos_token_id: Some(TokenIds::One(1)),
        }
    }
}

impl T5Config {
    /// Decoder layers.
    pub fn decoder_layers(&self) -> usize {
        self.num_decoder_layers.unwrap_or(self.num_layers)
    }

    /// Whether the head is the transposed word embedding.
    pub fn ties_head(&self) -> bool {
        self.tie_word_embeddings.unwrap_or(true)
    }

    /// Whether states are divided by √`d_model` before the head.
    ///
    /// The first T5 scaled and tied, version 1.1 did neither, and files of both say so by `tie_word_embeddings` alone.
    pub fn scales_outputs(&self) -> bool {
        self.scale_decoder_outputs.unwrap_or(self.ties_head())
    }

    /// The first token of every answer.
    pub fn start_token(&self) -> Option<u32> {
        self.decoder_start_token_id.or(self.bos_token_id)
    }

    /// Whether one of the feed-forward part's two projections gates the other.
    pub fn is_gated(&self) -> bool {
        self.is_gated_act
            .unwrap_or_else(|| self.feed_forward_proj.starts_with("gated-"))
    }

    /// The feed-forward part's activation.
    ///
    /// # Errors
    /// When `feed_forward_proj` names none that is known.
    pub fn activation(&self) -> Result<Activation, Blip2ConfigError> {
        if let Some(activation) = self.dense_act_fn {
            return Ok(activation);
        }
        let name = match self.feed_forward_proj.as_str() {
            // T5 version 1.1 means the approximation by this name.
            "gated-gelu" => "gelu_new",
            other => other.strip_prefix("gated-").unwrap_or(other),
        };
        Activation::named(name).ok_or_else(|| {
            Blip2ConfigError::new(
                "text_config.feed_forward_proj",
                "an activation such as relu, or gated- and an activation",
                &self.feed_forward_proj,
            )
        })
    }

    /// Whether a network can be built.
    pub(in crate::networks::blip2) fn validate(&self) -> Result<(), Blip2ConfigError> {
        self.activation()?;
        for (key, value) in [
            ("text_config.vocab_size", self.vocab_size),
            ("text_config.d_model", self.d_model),
            ("text_config.d_kv", self.d_kv),
            ("text_config.d_ff", self.d_ff),
            ("text_config.num_heads", self.num_heads),
            ("text_config.num_layers", self.num_layers),
            ("text_config.num_decoder_layers", self.decoder_layers()),
        ] {
            if value == 0 {
                return Err(Blip2ConfigError::new(key, "at least 1", value));
            }
        }
        let (buckets, distance) = (
            self.relative_attention_num_buckets,
            self.relative_attention_max_distance,
        );
        // The encoder gives half of the buckets to each direction, and half of those to single distances.
        if buckets < 4 {
            let key = "text_config.relative_attention_num_buckets";
            return Err(Blip2ConfigError::new(key, "at least 4", buckets));
        }
        if distance <= buckets / 2 {
            let key = "text_config.relative_attention_max_distance";
            let expected = format!("more than half of the {buckets} buckets");
            return Err(Blip2ConfigError::new(key, expected, distance));
        }
        Ok(())
    }
}
