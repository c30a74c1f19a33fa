//! The OPT decoder (transformers' OPTForCausalLM).

use burn::module::{Initializer, Module};
use burn::nn::{Embedding, EmbeddingConfig, LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::tensor::{Bool, Int, Tensor, backend::Backend};

use super::attention::{attend, split_heads};
use super::cache::KeyValueCache;
use super::config::OptConfig;
use crate::nn::activation::Activation;
use crate::nn::linear::by_rows;
use crate::nn::precision::widened_layer_norm;

/// The first two rows of the position table belong to no position.
const POSITION_OFFSET: usize = 2;
/// PyTorch's default, which OPT does not change.
const NORM_EPSILON: f64 = 1e-5;

/// Decoder and head.
#[derive(Module, Debug)]
pub struct OptForCausalLm<B: Backend> {
    pub model: OptModel<B>,
    /// Absent when the head is the transposed word embedding.
    pub lm_head: Option<Linear<B>>,
}

/// The decoder's wrapper, for the name's sake.
#[derive(Module, Debug)]
pub struct OptModel<B: Backend> {
    pub decoder: OptDecoder<B>,
}

/// Embeddings and layers.
#[derive(Module, Debug)]
pub struct OptDecoder<B: Backend> {
    pub embed_tokens: Embedding<B>,
    pub embed_positions: Embedding<B>,
    pub project_out: Option<Linear<B>>,
    pub project_in: Option<Linear<B>>,
    pub final_layer_norm: Option<LayerNorm<B>>,
    pub layers: Vec<OptDecoderLayer<B>>,
    ends_with_norm: bool,
}

/// One layer, pre-norm or post-norm.
#[derive(Module, Debug)]
pub struct OptDecoderLayer<B: Backend> {
    pub self_attn: OptAttention<B>,
    pub self_attn_layer_norm: Option<LayerNorm<B>>,
    pub fc1: Linear<B>,
    pub fc2: Linear<B>,
    pub final_layer_norm: Option<LayerNorm<B>>,
    #[module(skip)]
    activation: Activation,
    norm_before: bool,
}

/// Causal self-attention.
#[derive(Module, Debug)]
pub struct OptAttention<B: Backend> {
    pub k_proj: Linear<B>,
    pub v_proj: Linear<B>,
    pub q_proj: Linear<B>,
    pub out_proj: Linear<B>,
    num_heads: usize,
}

impl OptConfig {
    /// A decoder with random weights.
    pub fn init<B: Backend>(
        &self,
        initializer_range: f64,
        device: &B::Device,
    ) -> OptForCausalLm<B> {
        let normal = Initializer::Normal {
            mean: 0.0,
            std: initializer_range,
        };
        let linear = |from: usize, to: usize, bias: bool| {
            LinearConfig::new(from, to)
                .with_bias(bias)
                .with_initializer(normal.clone())
                .init(device)
        };
        let embedding = |rows: usize, width: usize| {
            EmbeddingConfig::new(rows, width)
                .with_initializer(normal.clone())
                .init(device)
        };
        let (width, words, bias) = (self.hidden_size, self.word_width(), self.enable_bias);
        let affine = self.layer_norm_elementwise_affine;
        let norm = || {
            affine.then(|| {
                LayerNormConfig::new(width)
                    .with_epsilon(NORM_EPSILON)
                    .init(device)
            })
        };
        let layers = (0..self.num_hidden_layers)
            .map(|_| OptDecoderLayer {
                self_attn: OptAttention {
                    k_proj: linear(width, width, bias),
                    v_proj: linear(width, width, bias),
                    q_proj: linear(width, width, bias),
                    out_proj: linear(width, width, bias),
                    num_heads: self.num_attention_heads,
                },
                self_attn_layer_norm: norm(),
                fc1: linear(width, self.ffn_dim, bias),
                fc2: linear(self.ffn_dim, width, bias),
                final_layer_norm: norm(),
                activation: self.activation_function,
                norm_before: self.do_layer_norm_before,
            })
            .collect();
        let ends_with_norm = self.do_layer_norm_before && !self.remove_final_layer_norm;
        OptForCausalLm {
            model: OptModel {
                decoder: OptDecoder {
                    embed_tokens: embedding(self.vocab_size, words),
                    embed_positions: embedding(
                        self.max_position_embeddings + POSITION_OFFSET,
                        width,
                    ),
                    project_out: (words != width).then(|| linear(width, words, false)),
                    project_in: (words != width).then(|| linear(words, width, false)),
                    final_layer_norm: if ends_with_norm { norm() } else { None },
                    ends_with_norm,
                    layers,
                },
            },
            lm_head: (!self.tie_word_embeddings).then(|| linear(words, self.vocab_size, false)),
        }
    }
}

/// Which tokens stand where, and who may look at whom.
#[derive(Debug, Clone)]
pub(super) struct Places<B: Backend> {
    /// Rows of the position table, `[rows, new tokens]`.
    positions: Tensor<B, 2, Int>,
    /// True where a new token must not look, `[rows, 1, new tokens, all tokens]`; absent when all is seen.
    hidden: Option<Tensor<B, 4, Bool>>,
}

impl<B: Backend> Places<B> {
    /// Places of the last `num_new` tokens of rows whose tokens are real where `mask` is true.
    ///
    /// Positions count the real tokens only. A padding token sees itself, so that its (unused) softmax is defined.
    pub(super) fn of(mask: &[Vec<bool>], num_new: usize, device: &B::Device) -> Self {
        let (rows, total) = (mask.len(), mask.first().map_or(0, Vec::len));
        let past = total - num_new;
        let mut positions = Vec::with_capacity(rows * num_new);
        let mut hidden = Vec::with_capacity(rows * num_new * total);
        for row in mask {
            let mut count = row[..past].iter().filter(|real| **real).count();
            for query in past..total {
                positions.push(if row[query] {
                    count + POSITION_OFFSET
                } else {
                    POSITION_OFFSET - 1
                } as i64);
                count += usize::from(row[query]);
                hidden.extend((0..total).map(|key| key > query || (!row[key] && key != query)));
            }
        }
        let any = hidden.contains(&true);
        let positions =
            Tensor::<B, 1, Int>::from_data(positions.as_slice(), device).reshape([rows, num_new]);
        let hidden = any.then(|| {
            Tensor::<B, 1, Bool>::from_data(hidden.as_slice(), device)
                .reshape([rows, 1, num_new, total])
        });
        Self { positions, hidden }
    }
}

impl<B: Backend> OptForCausalLm<B> {
    /// Word embeddings of `ids` `[rows, tokens]`.
    pub fn embed(&self, ids: Tensor<B, 2, Int>) -> Tensor<B, 3> {
        self.model.decoder.embed_tokens.forward(ids)
    }

    /// Scores of the vocabulary, `[rows, tokens, vocabulary]`, for states of the decoder.
    pub fn logits(&self, states: Tensor<B, 3>) -> Tensor<B, 3> {
        match &self.lm_head {
            Some(head) => head.forward(states),
            None => by_rows(states, self.model.decoder.embed_tokens.weight.val(), None),
        }
    }

    /// States after the last norm and projection, `[rows, new tokens, word width]`.
    pub(super) fn states(
        &self,
        inputs_embeds: Tensor<B, 3>,
        places: Places<B>,
        mut cache: Option<&mut KeyValueCache<B>>,
    ) -> Tensor<B, 3> {
        let decoder = &self.model.decoder;
        let words = match &decoder.project_in {
            Some(project) => project.forward(inputs_embeds),
            None => inputs_embeds,
        };
        let mut states = words + decoder.embed_positions.forward(places.positions);
        for (index, layer) in decoder.layers.iter().enumerate() {
            let cache = cache.as_deref_mut().map(|cache| (cache, index));
            states = layer.forward(states, places.hidden.clone(), cache);
        }
        if decoder.ends_with_norm {
            states = normalise(&decoder.final_layer_norm, states);
        }
        match &decoder.project_out {
            Some(project) => project.forward(states),
            None => states,
        }
    }
}

/// A layer norm with its weights, or without (`layer_norm_elementwise_affine: false`).
fn normalise<B: Backend>(norm: &Option<LayerNorm<B>>, states: Tensor<B, 3>) -> Tensor<B, 3> {
    match norm {
        Some(norm) => widened_layer_norm(norm, states),
        None => {
            let centred = states.clone() - states.mean_dim(2);
            let variance = centred.clone().powi_scalar(2).mean_dim(2);
            centred / variance.add_scalar(NORM_EPSILON).sqrt()
        }
    }
}

impl<B: Backend> OptDecoderLayer<B> {
    fn forward(
        &self,
        states: Tensor<B, 3>,
        hidden: Option<Tensor<B, 4, Bool>>,
        cache: Option<(&mut KeyValueCache<B>, usize)>,
    ) -> Tensor<B, 3> {
        let before = |norm: &Option<LayerNorm<B>>, states: &Tensor<B, 3>| match self.norm_before {
            true => normalise(norm, states.clone()),
            false => states.clone(),
        };
        let after = |norm: &Option<LayerNorm<B>>, states: Tensor<B, 3>| match self.norm_before {
            true => states,
            false => normalise(norm, states),
        };
        let read =
            self.self_attn
                .forward(before(&self.self_attn_layer_norm, &states), hidden, cache);
        let states = after(&self.self_attn_layer_norm, states + read);
        let inner = self.fc1.forward(before(&self.final_layer_norm, &states));
        let inner = self.fc2.forward(self.activation.forward(inner));
        after(&self.final_layer_norm, states + inner)
    }
}

impl<B: Backend> OptAttention<B> {
    fn forward(
        &self,
        states: Tensor<B, 3>,
        hidden: Option<Tensor<B, 4, Bool>>,
        cache: Option<(&mut KeyValueCache<B>, usize)>,
    ) -> Tensor<B, 3> {
        let query = split_heads(self.q_proj.forward(states.clone()), self.num_heads);
        let mut key = split_heads(self.k_proj.forward(states.clone()), self.num_heads);
        let mut value = split_heads(self.v_proj.forward(states), self.num_heads);
        if let Some((cache, layer)) = cache {
            (key, value) = cache.append(layer, key, value);
        }
        self.out_proj.forward(attend(query, key, value, hidden))
    }
}
