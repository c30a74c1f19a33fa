//! The language model: embeddings, decoder layers, output layer.

use std::ops::Range;

use burn::module::{Initializer, Module, ModuleMapper, Param};
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig, RmsNorm};
use burn::tensor::{DType, Int, Tensor, TensorData, backend::Backend};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::block::{Context, DecoderLayer, norm};
use super::cache::KeyValueCache;
use super::config::{LlamaConfig, LlamaConfigError};
use crate::nn::linear::by_rows;
use crate::nn::norm::rms_norm;
use crate::nn::rotary::Rotary;

/// Added to a forbidden attention score. Finite, so that a row of padding alone stays finite.
const FORBIDDEN: f32 = -1e9;

/// The decoder without its output layer (`LlamaModel`).
#[derive(Module, Debug)]
pub struct LlamaModel<B: Backend> {
    /// Token embeddings.
    pub embed_tokens: Embedding<B>,
    /// Decoder layers.
    pub layers: Vec<DecoderLayer<B>>,
    /// Final norm.
    pub norm: RmsNorm<B>,
    #[module(skip)]
    rotary: Rotary,
}

/// The language model (`LlamaForCausalLM`).
#[derive(Module, Debug)]
pub struct LlamaForCausalLm<B: Backend> {
    /// The decoder.
    pub model: LlamaModel<B>,
    /// Hidden state to vocabulary; absent when the embedding table serves.
    pub lm_head: Option<Linear<B>>,
}

impl LlamaConfig {
    /// The network with zero weights and unit norms, to be loaded or [initialised](LlamaForCausalLm::initialise).
    ///
    /// # Errors
    /// When [`LlamaConfig::validate`] refuses the configuration.
    pub fn init<B: Backend>(
        &self,
        device: &B::Device,
    ) -> Result<LlamaForCausalLm<B>, LlamaConfigError> {
        self.validate()?;
        let embed_tokens = EmbeddingConfig::new(self.vocab_size, self.hidden_size)
            .with_initializer(Initializer::Zeros)
            .init(device);
        let lm_head = (!self.tie_word_embeddings).then(|| {
            LinearConfig::new(self.hidden_size, self.vocab_size)
                .with_bias(false)
                .with_initializer(Initializer::Zeros)
                .init(device)
        });
        Ok(LlamaForCausalLm {
            model: LlamaModel {
                embed_tokens,
                layers: (0..self.num_hidden_layers)
                    .map(|_| DecoderLayer::zeros(self, device))
                    .collect(),
                norm: norm(self, device),
                rotary: Rotary::new(self.head_dim(), self.rope_theta(), self.rope_scaling()?),
            },
            lm_head,
        })
    }
}

impl<B: Backend> LlamaForCausalLm<B> {
    /// Fresh weights: every matrix drawn from `N(0, deviation²)` on the host, so that any backend
    /// starts from the same numbers.
    pub fn initialise(self, deviation: f64, seed: u64) -> Self {
        self.map(&mut NormalWeights {
            deviation,
            random: ChaCha8Rng::seed_from_u64(seed),
        })
    }

    /// Entries of the vocabulary, `[IMG]` rows not counted.
    pub fn vocabulary_size(&self) -> usize {
        self.model.embed_tokens.weight.lazy_shape().dims::<2>()[0]
    }

    /// Width of the hidden states.
    pub fn width(&self) -> usize {
        self.model.embed_tokens.weight.lazy_shape().dims::<2>()[1]
    }

    /// Layers, key/value heads of each, and their width: what a [`KeyValueCache`] holds.
    pub fn key_value_shape(&self) -> [usize; 3] {
        let first = self.model.layers.first();
        let [heads, width] = first.map_or([0, 0], |layer| layer.self_attn.key_value_shape());
        [self.model.layers.len(), heads, width]
    }

    /// An empty cache for [`Self::forward_cached`].
    pub fn new_cache(&self) -> KeyValueCache<B> {
        KeyValueCache::new(self.model.layers.len())
    }

    /// Token embeddings.
    ///
    /// # Shapes
    /// `[batch, tokens]` to `[batch, tokens, width]`.
    pub fn embed(&self, ids: Tensor<B, 2, Int>) -> Tensor<B, 3> {
        self.model.embed_tokens.forward(ids)
    }

    /// Last hidden states, after the final norm.
    ///
    /// `attention_mask` is 1 at tokens and 0 at padding. Positions count padding too: rotations are
    /// relative, so padding on the left shifts nothing.
    ///
    /// # Shapes
    /// Embeddings `[batch, tokens, width]`, mask `[batch, tokens]`, result `[batch, tokens, width]`.
    pub fn forward_hidden(
        &self,
        inputs_embeds: Tensor<B, 3>,
        attention_mask: Option<Tensor<B, 2, Int>>,
    ) -> Tensor<B, 3> {
        self.forward_layers(inputs_embeds, attention_mask, None)
    }

    /// Like [`Self::forward_hidden`] for tokens that follow those in `cache`, which then holds them too.
    ///
    /// # Shapes
    /// Embeddings `[batch, new tokens, width]`, mask `[batch, cached + new tokens]`, result `[batch, new tokens, width]`.
    pub fn forward_cached(
        &self,
        inputs_embeds: Tensor<B, 3>,
        attention_mask: Option<Tensor<B, 2, Int>>,
        cache: &mut KeyValueCache<B>,
    ) -> Tensor<B, 3> {
        self.forward_layers(inputs_embeds, attention_mask, Some(cache))
    }

    /// Scores of the next token.
    ///
    /// # Shapes
    /// Hidden states `[batch, tokens, width]` to `[batch, tokens, vocabulary]`.
    pub fn logits(&self, hidden: Tensor<B, 3>) -> Tensor<B, 3> {
        match &self.lm_head {
            Some(head) => head.forward(hidden),
            None => by_rows(hidden, self.model.embed_tokens.weight.val(), None),
        }
    }

    /// Decoder layers.
    pub fn num_layers(&self) -> usize {
        self.model.layers.len()
    }

    /// A part of [`Self::forward_hidden`]: some of the layers, without the final norm.
    ///
    /// # Shapes
    /// As [`Self::forward_hidden`].
    pub fn forward_range(
        &self,
        mut states: Tensor<B, 3>,
        attention_mask: Tensor<B, 2, Int>,
        layers: Range<usize>,
    ) -> Tensor<B, 3> {
        let [_, tokens, _] = states.dims();
        let (dtype, device) = (states.dtype(), states.device());
        let context = self.context(0, tokens, Some(attention_mask), dtype, &device);
        for layer in &self.model.layers[layers] {
            states = layer.forward(states, &context, None);
        }
        states
    }

    /// The final norm, `[batch, tokens, width]` in and out.
    pub fn final_norm(&self, states: Tensor<B, 3>) -> Tensor<B, 3> {
        rms_norm(&self.model.norm, states)
    }

    fn context(
        &self,
        start: usize,
        tokens: usize,
        attention_mask: Option<Tensor<B, 2, Int>>,
        dtype: DType,
        device: &B::Device,
    ) -> Context<B> {
        let heads = self.model.layers.first();
        let heads = heads.map_or([0; 2], |layer| layer.self_attn.head_counts());
        let rotary = self.model.rotary.tables(start, tokens, device);
        Context {
            rotary: rotary.with_heads(&heads, dtype),
            bias: attention_bias(start, tokens, attention_mask, device),
        }
    }

    fn forward_layers(
        &self,
        inputs_embeds: Tensor<B, 3>,
        attention_mask: Option<Tensor<B, 2, Int>>,
        mut cache: Option<&mut KeyValueCache<B>>,
    ) -> Tensor<B, 3> {
        let [_, tokens, _] = inputs_embeds.dims();
        let start = cache.as_ref().map_or(0, |cache| cache.length());
        let (dtype, device) = (inputs_embeds.dtype(), inputs_embeds.device());
        let context = self.context(start, tokens, attention_mask, dtype, &device);
        let mut states = inputs_embeds;
        for (index, layer) in self.model.layers.iter().enumerate() {
            let cache = cache.as_mut().map(|cache| (&mut **cache, index));
            states = layer.forward(states, &context, cache);
        }
        rms_norm(&self.model.norm, states)
    }
}

/// Zero where a new token may look, hugely negative at later tokens and at padding.
fn attention_bias<B: Backend>(
    start: usize,
    tokens: usize,
    attention_mask: Option<Tensor<B, 2, Int>>,
    device: &B::Device,
) -> Tensor<B, 4> {
    let all = start + tokens;
    let causal: Vec<f32> = (start..all)
        .flat_map(|row| (0..all).map(move |column| if column > row { FORBIDDEN } else { 0.0 }))
        .collect();
    let causal = Tensor::from_data(TensorData::new(causal, [1, 1, tokens, all]), device);
    match attention_mask {
        None => causal,
        Some(mask) => {
            let [batch, length] = mask.dims();
            assert_eq!(length, all, "the mask covers the cached and the new tokens");
            // Filled, not computed from `mask.float()`: a float made of integers has no place in a graph.
            let padding = Tensor::<B, 2>::zeros([batch, all], device)
                .mask_fill(mask.equal_elem(0), FORBIDDEN);
            causal + padding.reshape([batch, 1, 1, all])
        }
    }
}

/// Replaces every matrix by normal draws and leaves norms and biases alone.
struct NormalWeights {
    deviation: f64,
    random: ChaCha8Rng,
}

impl<B: Backend> ModuleMapper<B> for NormalWeights {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        if D != 2 {
            return param;
        }
        let (id, old, mapper) = param.consume();
        let shape = old.shape();
        let count = shape.num_elements();
        let values = super::image_tokens::normal_values(count, self.deviation, &mut self.random);
        let fresh = Tensor::from_data(TensorData::new(values, shape), &old.device())
            .set_require_grad(old.is_require_grad());
        Param::from_mapped_value(id, fresh, mapper)
    }
}
