//! The vision tower (transformers' Blip2VisionModel): pre-norm transformer over image patches.

use burn::module::{Initializer, Module, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::tensor::{Tensor, backend::Backend};

use super::attention::{attend, split_heads};
use super::config::Blip2VisionConfig;
use crate::nn::activation::Activation;
use crate::nn::host::over_rows;
use crate::nn::linear::over_tokens;
use crate::nn::precision::widened_layer_norm;

/// Image patches to hidden states.
#[derive(Module, Debug)]
pub struct Blip2VisionModel<B: Backend> {
    pub embeddings: Blip2VisionEmbeddings<B>,
    pub encoder: Blip2Encoder<B>,
    pub post_layernorm: LayerNorm<B>,
}

/// A class token and one token per patch, with learned positions.
#[derive(Module, Debug)]
pub struct Blip2VisionEmbeddings<B: Backend> {
    pub class_embedding: Param<Tensor<B, 3>>,
    pub patch_embedding: Conv2d<B>,
    pub position_embedding: Param<Tensor<B, 3>>,
}

/// The layers.
#[derive(Module, Debug)]
pub struct Blip2Encoder<B: Backend> {
    pub layers: Vec<Blip2EncoderLayer<B>>,
}

/// One pre-norm layer.
#[derive(Module, Debug)]
pub struct Blip2EncoderLayer<B: Backend> {
    pub self_attn: Blip2Attention<B>,
    pub layer_norm1: LayerNorm<B>,
    pub mlp: Blip2Mlp<B>,
    pub layer_norm2: LayerNorm<B>,
}

/// Self-attention whose query, key and value come from one matrix.
#[derive(Module, Debug)]
pub struct Blip2Attention<B: Backend> {
    pub qkv: Linear<B>,
    pub projection: Linear<B>,
    num_heads: usize,
}

/// Feed-forward part.
#[derive(Module, Debug)]
pub struct Blip2Mlp<B: Backend> {
    pub fc1: Linear<B>,
    pub fc2: Linear<B>,
    #[module(skip)]
    activation: Activation,
}

impl Blip2VisionConfig {
    /// A tower with random weights.
    pub fn init<B: Backend>(
        &self,
        initializer_range: f64,
        device: &B::Device,
    ) -> Blip2VisionModel<B> {
        let normal = Initializer::Normal {
            mean: 0.0,
            std: initializer_range,
        };
        let norm = || {
            LayerNormConfig::new(self.hidden_size)
                .with_epsilon(self.layer_norm_eps)
                .init(device)
        };
        let linear = |from: usize, to: usize, bias: bool| {
            LinearConfig::new(from, to)
                .with_bias(bias)
                .with_initializer(normal.clone())
                .init(device)
        };
        let width = self.hidden_size;
        let layers = (0..self.num_hidden_layers)
            .map(|_| Blip2EncoderLayer {
                self_attn: Blip2Attention {
                    qkv: linear(width, 3 * width, self.qkv_bias),
                    projection: linear(width, width, true),
                    num_heads: self.num_attention_heads,
                },
                layer_norm1: norm(),
                mlp: Blip2Mlp {
                    fc1: linear(width, self.intermediate_size, true),
                    fc2: linear(self.intermediate_size, width, true),
                    activation: self.hidden_act,
                },
                layer_norm2: norm(),
            })
            .collect();
        let patch = [self.patch_size, self.patch_size];
        Blip2VisionModel {
            embeddings: Blip2VisionEmbeddings {
                class_embedding: normal.init([1, 1, width], device),
                patch_embedding: Conv2dConfig::new([3, width], patch)
                    .with_stride(patch)
                    .init(device),
                position_embedding: normal.init([1, self.num_positions(), width], device),
            },
            encoder: Blip2Encoder { layers },
            post_layernorm: norm(),
        }
    }
}

impl<B: Backend> Blip2VisionModel<B> {
    /// Hidden states after the final norm: pixels `[batch, 3, height, width]`, normalised as the checkpoint's
    /// preprocessor says → `[batch, 1 + patches, width]`.
    pub fn forward(&self, pixel_values: Tensor<B, 4>) -> Tensor<B, 3> {
        let ([rows, ..], device) = (pixel_values.dims(), pixel_values.device());
        over_rows(rows, &device, |rows| {
            let pixels = pixel_values.clone().narrow(0, rows.start, rows.len());
            let states = self.embeddings.forward(pixels);
            let layers = self.encoder.layers.iter();
            let states = layers.fold(states, |states, layer| layer.forward(states));
            widened_layer_norm(&self.post_layernorm, states)
        })
    }
}

impl<B: Backend> Blip2VisionEmbeddings<B> {
    fn forward(&self, pixel_values: Tensor<B, 4>) -> Tensor<B, 3> {
        let patches = self
            .patch_embedding
            .forward(pixel_values)
            .flatten::<3>(2, 3)
            .swap_dims(1, 2);
        let [batch, _, width] = patches.dims();
        let class = self.class_embedding.val().expand([batch, 1, width]);
        Tensor::cat(vec![class, patches], 1) + self.position_embedding.val()
    }
}

impl<B: Backend> Blip2EncoderLayer<B> {
    fn forward(&self, states: Tensor<B, 3>) -> Tensor<B, 3> {
        let states = states.clone()
            + self
                .self_attn
                .forward(widened_layer_norm(&self.layer_norm1, states));
        states.clone()
            + self
                .mlp
                .forward(widened_layer_norm(&self.layer_norm2, states))
    }
}

impl<B: Backend> Blip2Attention<B> {
    fn forward(&self, states: Tensor<B, 3>) -> Tensor<B, 3> {
        let mixed = over_tokens(&self.qkv, states).chunk(3, 2);
        let mut heads = mixed
            .into_iter()
            .map(|part| split_heads(part, self.num_heads));
        let (query, key, value) = match (heads.next(), heads.next(), heads.next()) {
            (Some(query), Some(key), Some(value)) => (query, key, value),
            _ => unreachable!("three times the width splits into three"),
        };
        over_tokens(&self.projection, attend(query, key, value, None))
    }
}

impl<B: Backend> Blip2Mlp<B> {
    fn forward(&self, states: Tensor<B, 3>) -> Tensor<B, 3> {
        let inner = self.activation.forward(over_tokens(&self.fc1, states));
        over_tokens(&self.fc2, inner)
    }
}
