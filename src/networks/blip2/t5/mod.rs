//! T5 (Raffel et al., 2020; Flan-T5 in the published checkpoints), transformers' T5ForConditionalGeneration: an encoder
//! reads image and prompt, a decoder writes the answer. In half precision the reference clamps infinite states between
//! layers; this does not, since it computes in f32.

mod attention;
mod config;
mod position;
mod stack;

pub use attention::T5Attention;
pub use config::T5Config;
pub(super) use stack::DecoderCache;
pub use stack::{
    T5CrossAttention, T5Decoder, T5DecoderBlock, T5Dense, T5Encoder, T5EncoderBlock, T5FeedForward,
    T5SelfAttention,
};

use burn::module::Module;
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig};
use burn::tensor::{Bool, Int, Tensor, TensorData, backend::Backend};

use self::attention::normal;
use super::cache::KeyValueCache;
use super::config::Blip2ConfigError;
use crate::nn::linear::by_rows;

/// Encoder, decoder and head.
#[derive(Module, Debug)]
pub struct T5ForConditionalGeneration<B: Backend> {
    /// Word embeddings of both sides.
    pub shared: Embedding<B>,
    pub encoder: T5Encoder<B>,
    pub decoder: T5Decoder<B>,
    /// Absent when the head is the transposed word embedding.
    pub lm_head: Option<Linear<B>>,
    scales_outputs: bool,
}

impl T5Config {
    /// A network with random weights.
    ///
    /// # Errors
    /// When `feed_forward_proj` names no activation that is known.
    pub fn init<B: Backend>(
        &self,
        device: &B::Device,
    ) -> Result<T5ForConditionalGeneration<B>, Blip2ConfigError> {
        let (words, width) = (self.vocab_size, self.d_model);
        let head = LinearConfig::new(width, words)
            .with_bias(false)
            .with_initializer(normal(1.0));
        Ok(T5ForConditionalGeneration {
            shared: EmbeddingConfig::new(words, width)
                .with_initializer(normal(1.0))
                .init(device),
            encoder: T5Encoder::new(self, device)?,
            decoder: T5Decoder::new(self, device)?,
            lm_head: (!self.ties_head()).then(|| head.init(device)),
            scales_outputs: self.scales_outputs(),
        })
    }
}

/// What the encoder made of a prompt.
#[derive(Debug, Clone)]
pub struct Encoded<B: Backend> {
    /// States after the final norm, `[rows, tokens, width]`; those of padding mean nothing.
    pub states: Tensor<B, 3>,
    /// True where the decoder must not look, `[rows, 1, 1, tokens]`; absent when it may look everywhere.
    pub(super) hidden: Option<Tensor<B, 4, Bool>>,
}

impl<B: Backend> Encoded<B> {
    /// Row `i` becomes what row `sources[i]` was.
    pub(super) fn reorder(&mut self, sources: Tensor<B, 1, Int>) {
        self.states = self.states.clone().select(0, sources.clone());
        // Masks are selected as integers: not every backend selects booleans.
        self.hidden = self
            .hidden
            .take()
            .map(|hidden| hidden.int().select(0, sources).bool());
    }
}

impl<B: Backend> T5ForConditionalGeneration<B> {
    /// Word embeddings of `ids` `[rows, tokens]`.
    pub fn embed(&self, ids: Tensor<B, 2, Int>) -> Tensor<B, 3> {
        self.shared.forward(ids)
    }

    /// Reads embeddings `[rows, tokens, width]` whose tokens are real where `mask` is true.
    ///
    /// Padding is no position of its own: distances count it, unlike OPT's.
    pub fn encode(&self, inputs_embeds: Tensor<B, 3>, mask: &[Vec<bool>]) -> Encoded<B> {
        let device = inputs_embeds.device();
        let [rows, tokens, _] = inputs_embeds.dims();
        // A row of padding alone sees itself, so that its (unused) softmax is defined.
        let hidden: Vec<bool> = mask
            .iter()
            .flat_map(|row| {
                let any = row.contains(&true);
                row.iter().map(move |real| any && !real)
            })
            .collect();
        let hidden = hidden.contains(&true).then(|| {
            let hidden = TensorData::new(hidden, [rows, 1, 1, tokens]);
            Tensor::<B, 4, Bool>::from_data(hidden, &device)
        });
        Encoded {
            states: self.encoder.forward(inputs_embeds, hidden.clone()),
            hidden,
        }
    }

    /// Scores of the vocabulary after each of `ids` `[rows, tokens]`: `[rows, tokens, vocabulary]`.
    pub fn decode(&self, ids: Tensor<B, 2, Int>, encoded: &Encoded<B>) -> Tensor<B, 3> {
        let total = ids.dims()[1];
        self.logits(self.states(ids, total, encoded, None))
    }

    /// The decoder's states of the last tokens, `ids`, of `total`.
    pub(super) fn states(
        &self,
        ids: Tensor<B, 2, Int>,
        total: usize,
        encoded: &Encoded<B>,
        cache: Option<&mut DecoderCache<B>>,
    ) -> Tensor<B, 3> {
        let hidden = encoded.hidden.clone();
        self.decoder
            .forward(self.embed(ids), total, &encoded.states, hidden, cache)
    }

    /// Scores of the vocabulary, `[rows, tokens, vocabulary]`, for states of the decoder.
    pub(super) fn logits(&self, states: Tensor<B, 3>) -> Tensor<B, 3> {
        let width = states.dims()[2] as f64;
        let states = match self.scales_outputs {
            true => states.mul_scalar(width.powf(-0.5)),
            false => states,
        };
        match &self.lm_head {
            Some(head) => head.forward(states),
            None => by_rows(states, self.shared.weight.val(), None),
        }
    }

    /// An empty cache.
    pub(super) fn cache(&self) -> DecoderCache<B> {
        let layers = self.decoder.block.len();
        DecoderCache {
            written: KeyValueCache::new(layers),
            read: KeyValueCache::new(layers),
        }
    }
}
