//! One decoder layer: attention and feed-forward, each after an RMS norm and with a residual.

use burn::module::Module;
use burn::nn::{RmsNorm, RmsNormConfig};
use burn::tensor::{Tensor, backend::Backend};

use super::cache::KeyValueCache;
use super::config::LlamaConfig;
use crate::nn::activation::gated_silu;
use crate::nn::attention::biased_softmax;
use crate::nn::lora::LoraLinear;
use crate::nn::norm::rms_norm;
use crate::nn::product::product;
use crate::nn::rotary::RotaryTables;

/// What every layer of one forward pass shares.
#[derive(Debug, Clone)]
pub(super) struct Context<B: Backend> {
    /// Rotations of the new tokens.
    pub rotary: RotaryTables<B>,
    /// Added to the attention scores: zero or hugely negative, `[batch or 1, 1, new tokens, all tokens]`, f32.
    pub bias: Tensor<B, 4>,
}

/// Grouped-query attention (`LlamaAttention`).
#[derive(Module, Debug)]
pub struct Attention<B: Backend> {
    /// Width to query heads × head width.
    pub q_proj: LoraLinear<B>,
    /// Width to key/value heads × head width.
    pub k_proj: LoraLinear<B>,
    /// Width to key/value heads × head width.
    pub v_proj: LoraLinear<B>,
    /// Query heads × head width to width.
    pub o_proj: LoraLinear<B>,
    num_heads: usize,
    num_key_value_heads: usize,
    head_width: usize,
}

impl<B: Backend> Attention<B> {
    fn zeros(config: &LlamaConfig, device: &B::Device) -> Self {
        let width = config.hidden_size;
        let head_width = config.head_dim();
        let queries = config.num_attention_heads * head_width;
        let keys = config.num_key_value_heads() * head_width;
        let bias = config.attention_bias;
        Self {
            q_proj: LoraLinear::zeros(width, queries, bias, device),
            k_proj: LoraLinear::zeros(width, keys, bias, device),
            v_proj: LoraLinear::zeros(width, keys, bias, device),
            o_proj: LoraLinear::zeros(queries, width, bias, device),
            num_heads: config.num_attention_heads,
            num_key_value_heads: config.num_key_value_heads(),
            head_width,
        }
    }

    /// Query heads, key/value heads.
    pub(super) fn head_counts(&self) -> [usize; 2] {
        [self.num_heads, self.num_key_value_heads]
    }

    /// Key/value heads and their width.
    pub(super) fn key_value_shape(&self) -> [usize; 2] {
        [self.num_key_value_heads, self.head_width]
    }

    fn forward(
        &self,
        states: Tensor<B, 3>,
        context: &Context<B>,
        cache: Option<(&mut KeyValueCache<B>, usize)>,
    ) -> Tensor<B, 3> {
        let [batch, tokens, _] = states.dims();
        let heads = |projected: Tensor<B, 3>, count| {
            projected.reshape([batch, tokens, count, self.head_width])
        };
        let queries = heads(self.q_proj.forward(states.clone()), self.num_heads);
        let keys = heads(
            self.k_proj.forward(states.clone()),
            self.num_key_value_heads,
        );
        let values = heads(self.v_proj.forward(states), self.num_key_value_heads).swap_dims(1, 2);
        let queries = context.rotary.rotate(queries).swap_dims(1, 2);
        let keys = context.rotary.rotate(keys).swap_dims(1, 2);
        let (keys, values) = match cache {
            Some((cache, layer)) => cache.extend(layer, keys, values),
            None => (keys, values),
        };
        // The queries of one group share their key/value head: stacked as rows of one product,
        // nothing needs to be repeated.
        let group = self.num_heads / self.num_key_value_heads;
        let all = keys.dims()[2];
        let queries = match group {
            // Asked for its own shape, a view would be laid out anew.
            1 => queries,
            _ => queries.reshape([
                batch,
                self.num_key_value_heads,
                group * tokens,
                self.head_width,
            ]),
        };
        let scores = product(queries, keys.swap_dims(2, 3));
        let scores = scores.reshape([batch, self.num_heads, tokens, all]);
        let root = (self.head_width as f64).sqrt();
        let weights = biased_softmax(scores, root, context.bias.clone()).reshape([
            batch,
            self.num_key_value_heads,
            group * tokens,
            all,
        ]);
        let mixed = product(weights, values)
            .reshape([batch, self.num_heads, tokens, self.head_width])
            .swap_dims(1, 2)
            .reshape([batch, tokens, self.num_heads * self.head_width]);
        self.o_proj.forward(mixed)
    }
}

/// Gated feed-forward (`LlamaMLP`): `down(silu(gate x) · up x)`.
#[derive(Module, Debug)]
pub struct Mlp<B: Backend> {
    /// Width to inner width, through SiLU.
    pub gate_proj: LoraLinear<B>,
    /// Width to inner width.
    pub up_proj: LoraLinear<B>,
    /// Inner width to width.
    pub down_proj: LoraLinear<B>,
}

impl<B: Backend> Mlp<B> {
    fn zeros(config: &LlamaConfig, device: &B::Device) -> Self {
        let (width, inner, bias) = (
            config.hidden_size,
            config.intermediate_size,
            config.mlp_bias,
        );
        Self {
            gate_proj: LoraLinear::zeros(width, inner, bias, device),
            up_proj: LoraLinear::zeros(width, inner, bias, device),
            down_proj: LoraLinear::zeros(inner, width, bias, device),
        }
    }

    fn forward(&self, states: Tensor<B, 3>) -> Tensor<B, 3> {
        let gate = self.gate_proj.forward(states.clone());
        self.down_proj
            .forward(gated_silu(gate, self.up_proj.forward(states)))
    }
}

/// One decoder layer (`LlamaDecoderLayer`).
#[derive(Module, Debug)]
pub struct DecoderLayer<B: Backend> {
    /// Attention.
    pub self_attn: Attention<B>,
    /// Feed-forward.
    pub mlp: Mlp<B>,
    /// Before the attention.
    pub input_layernorm: RmsNorm<B>,
    /// Before the feed-forward.
    pub post_attention_layernorm: RmsNorm<B>,
}

impl<B: Backend> DecoderLayer<B> {
    /// A layer of zero weights and unit norms, to be loaded or initialised.
    pub(super) fn zeros(config: &LlamaConfig, device: &B::Device) -> Self {
        Self {
            self_attn: Attention::zeros(config, device),
            mlp: Mlp::zeros(config, device),
            input_layernorm: norm(config, device),
            post_attention_layernorm: norm(config, device),
        }
    }

    /// `[batch, new tokens, width]` in and out; the cache, when given, comes with this layer's index.
    pub(super) fn forward(
        &self,
        states: Tensor<B, 3>,
        context: &Context<B>,
        cache: Option<(&mut KeyValueCache<B>, usize)>,
    ) -> Tensor<B, 3> {
        let attended = self.self_attn.forward(
            rms_norm(&self.input_layernorm, states.clone()),
            context,
            cache,
        );
        let states = states + attended;
        let fed = self
            .mlp
            .forward(rms_norm(&self.post_attention_layernorm, states.clone()));
        states + fed
    }
}

/// An RMS norm of the network's width, computed in f32 whatever the states' type.
pub(super) fn norm<B: Backend>(config: &LlamaConfig, device: &B::Device) -> RmsNorm<B> {
    RmsNormConfig::new(config.hidden_size)
        .with_epsilon(config.rms_norm_eps)
        .init(device)
}
