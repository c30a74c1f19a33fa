//! The layers of encoder and decoder.

// The hub's names, which are the paths of the checkpoint's tensors.
#![allow(non_snake_case)]

use burn::module::Module;
use burn::nn::{Linear, LinearConfig, RmsNorm, RmsNormConfig};
use burn::tensor::{Bool, DType, Tensor, backend::Backend};

use super::attention::{T5Attention, normal};
use super::config::T5Config;
use crate::networks::blip2::cache::KeyValueCache;
use crate::networks::blip2::config::Blip2ConfigError;
use crate::nn::activation::Activation;

/// Reads the prompt.
#[derive(Module, Debug)]
pub struct T5Encoder<B: Backend> {
    pub block: Vec<T5EncoderBlock<B>>,
    pub final_layer_norm: RmsNorm<B>,
}

/// Writes the answer.
#[derive(Module, Debug)]
pub struct T5Decoder<B: Backend> {
    pub block: Vec<T5DecoderBlock<B>>,
    pub final_layer_norm: RmsNorm<B>,
}

/// Attention, feed-forward part.
#[derive(Module, Debug)]
pub struct T5EncoderBlock<B: Backend> {
    pub layer: (T5SelfAttention<B>, T5FeedForward<B>),
}

/// Attention to what is written, to what was read, feed-forward part.
#[derive(Module, Debug)]
pub struct T5DecoderBlock<B: Backend> {
    pub layer: (T5SelfAttention<B>, T5CrossAttention<B>, T5FeedForward<B>),
}

/// Attention to the own sequence, with norm and residual.
#[derive(Module, Debug)]
pub struct T5SelfAttention<B: Backend> {
    pub SelfAttention: T5Attention<B>,
    pub layer_norm: RmsNorm<B>,
}

/// Attention to the encoder's states, with norm and residual.
#[derive(Module, Debug)]
pub struct T5CrossAttention<B: Backend> {
    pub EncDecAttention: T5Attention<B>,
    pub layer_norm: RmsNorm<B>,
}

/// Feed-forward part, with norm and residual.
#[derive(Module, Debug)]
pub struct T5FeedForward<B: Backend> {
    pub DenseReluDense: T5Dense<B>,
    pub layer_norm: RmsNorm<B>,
}

/// Up, activation, down; in the gated form two ways up, one of them without activation.
#[derive(Module, Debug)]
pub struct T5Dense<B: Backend> {
    pub wi: Option<Linear<B>>,
    pub wi_0: Option<Linear<B>>,
    pub wi_1: Option<Linear<B>>,
    pub wo: Linear<B>,
    #[module(skip)]
    activation: Activation,
}

/// What the decoder keeps between steps.
#[derive(Debug, Clone)]
pub(in crate::networks::blip2) struct DecoderCache<B: Backend> {
    pub written: KeyValueCache<B>,
    pub read: KeyValueCache<B>,
}

impl<B: Backend> T5Encoder<B> {
    pub(super) fn new(config: &T5Config, device: &B::Device) -> Result<Self, Blip2ConfigError> {
        let block = |index| {
            let attention = T5SelfAttention {
                SelfAttention: T5Attention::new(config, true, index == 0, device),
                layer_norm: norm(config, device),
            };
            let layer = (attention, T5FeedForward::new(config, device)?);
            Ok(T5EncoderBlock { layer })
        };
        Ok(Self {
            block: (0..config.num_layers)
                .map(block)
                .collect::<Result<_, _>>()?,
            final_layer_norm: norm(config, device),
        })
    }

    /// States after the final norm, `[rows, tokens, width]`.
    pub(super) fn forward(
        &self,
        mut states: Tensor<B, 3>,
        hidden: Option<Tensor<B, 4, Bool>>,
    ) -> Tensor<B, 3> {
        let tokens = states.dims()[1];
        let bias = self
            .block
            .first()
            .and_then(|block| block.layer.0.SelfAttention.bias(tokens, tokens));
        for block in &self.block {
            let (attention, feed_forward) = &block.layer;
            states = attention.forward(states, bias.clone(), hidden.clone(), None);
            states = feed_forward.forward(states);
        }
        self.final_layer_norm.forward(states)
    }
}

impl<B: Backend> T5Decoder<B> {
    pub(super) fn new(config: &T5Config, device: &B::Device) -> Result<Self, Blip2ConfigError> {
        let block = |index| {
            let attention = T5SelfAttention {
                SelfAttention: T5Attention::new(config, false, index == 0, device),
                layer_norm: norm(config, device),
            };
            let cross = T5CrossAttention {
                EncDecAttention: T5Attention::new(config, true, false, device),
                layer_norm: norm(config, device),
            };
            let layer = (attention, cross, T5FeedForward::new(config, device)?);
            Ok(T5DecoderBlock { layer })
        };
        let layers = 0..config.decoder_layers();
        Ok(Self {
            block: layers.map(block).collect::<Result<_, _>>()?,
            final_layer_norm: norm(config, device),
        })
    }

    /// States of the new tokens after the final norm, `[rows, new tokens, width]`; `total` counts those before, too.
    pub(super) fn forward(
        &self,
        mut states: Tensor<B, 3>,
        total: usize,
        read: &Tensor<B, 3>,
        unread: Option<Tensor<B, 4, Bool>>,
        mut cache: Option<&mut DecoderCache<B>>,
    ) -> Tensor<B, 3> {
        let num_new = states.dims()[1];
        let future = future(num_new, total, &states.device());
        let bias = self
            .block
            .first()
            .and_then(|block| block.layer.0.SelfAttention.bias(num_new, total));
        for (index, block) in self.block.iter().enumerate() {
            let (attention, cross, feed_forward) = &block.layer;
            let (written, seen) = match cache.as_deref_mut() {
                None => (None, None),
                Some(cache) => (
                    Some((&mut cache.written, index)),
                    Some((&mut cache.read, index)),
                ),
            };
            states = attention.forward(states, bias.clone(), future.clone(), written);
            states = cross.forward(states, read, unread.clone(), seen);
            states = feed_forward.forward(states);
        }
        self.final_layer_norm.forward(states)
    }
}

/// True where a new token must not look because it is still to come, `[1, 1, new tokens, all tokens]`.
fn future<B: Backend>(
    num_new: usize,
    total: usize,
    device: &B::Device,
) -> Option<Tensor<B, 4, Bool>> {
    let hidden: Vec<bool> = (total - num_new..total)
        .flat_map(|query| (0..total).map(move |key| key > query))
        .collect();
    (num_new > 1).then(|| {
        Tensor::<B, 1, Bool>::from_data(hidden.as_slice(), device).reshape([1, 1, num_new, total])
    })
}

impl<B: Backend> T5SelfAttention<B> {
    fn forward(
        &self,
        states: Tensor<B, 3>,
        bias: Option<Tensor<B, 4>>,
        hidden: Option<Tensor<B, 4, Bool>>,
        cache: Option<(&mut KeyValueCache<B>, usize)>,
    ) -> Tensor<B, 3> {
        let normed = self.layer_norm.forward(states.clone());
        within_half(states + self.SelfAttention.look_back(normed, bias, hidden, cache))
    }
}

impl<B: Backend> T5CrossAttention<B> {
    fn forward(
        &self,
        states: Tensor<B, 3>,
        read: &Tensor<B, 3>,
        hidden: Option<Tensor<B, 4, Bool>>,
        cache: Option<(&mut KeyValueCache<B>, usize)>,
    ) -> Tensor<B, 3> {
        let normed = self.layer_norm.forward(states.clone());
        within_half(states + self.EncDecAttention.look_at(normed, read, hidden, cache))
    }
}

impl<B: Backend> T5FeedForward<B> {
    fn new(config: &T5Config, device: &B::Device) -> Result<Self, Blip2ConfigError> {
        let linear = |from: usize, to: usize| {
            LinearConfig::new(from, to)
                .with_bias(false)
                .with_initializer(normal((from as f64).powf(-0.5)))
                .init(device)
        };
        let (width, inner) = (config.d_model, config.d_ff);
        let gated = config.is_gated();
        Ok(Self {
            DenseReluDense: T5Dense {
                wi: (!gated).then(|| linear(width, inner)),
                wi_0: gated.then(|| linear(width, inner)),
                wi_1: gated.then(|| linear(width, inner)),
                wo: linear(inner, width),
                activation: config.activation()?,
            },
            layer_norm: norm(config, device),
        })
    }

    fn forward(&self, states: Tensor<B, 3>) -> Tensor<B, 3> {
        let dense = &self.DenseReluDense;
        let normed = self.layer_norm.forward(states.clone());
        let way_up =
            |linear: &Option<Linear<B>>| linear.as_ref().map(|layer| layer.forward(normed.clone()));
        let inner = way_up(&dense.wi)
            .or(way_up(&dense.wi_0))
            .expect("a feed-forward part is built gated or not");
        let inner = dense.activation.forward(inner);
        let inner = match way_up(&dense.wi_1) {
            Some(gate) => inner * gate,
            None => inner,
        };
        within_half(states + dense.wo.forward(within_half(inner)))
    }
}

/// T5 was trained in bf16, whose numbers go further than those of f16: there what went beyond the largest one is brought
/// back below it (as the reference does), for infinity becomes NaN at the next norm.
fn within_half<B: Backend>(states: Tensor<B, 3>) -> Tensor<B, 3> {
    const LARGEST: f64 = 64_504.0;
    match states.dtype() {
        DType::F16 => states.clamp(-LARGEST, LARGEST),
        _ => states,
    }
}

fn norm<B: Backend>(config: &T5Config, device: &B::Device) -> RmsNorm<B> {
    RmsNormConfig::new(config.d_model)
        .with_epsilon(config.layer_norm_epsilon)
        .init(device)
}
