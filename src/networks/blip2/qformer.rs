//! The Q-Former (transformers' Blip2QFormerModel): a BERT of learned queries that look at the image in every n-th layer.

// The hub's names, which are the paths of the checkpoint's tensors.
#![allow(non_snake_case)]

use burn::module::{Initializer, Module};
use burn::nn::{LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::tensor::{Tensor, backend::Backend};

use super::attention::{attend, split_heads};
use super::config::Blip2QFormerConfig;
use crate::nn::activation::Activation;
use crate::nn::precision::widened_layer_norm;

/// Queries to answers.
#[derive(Module, Debug)]
pub struct Blip2QFormerModel<B: Backend> {
    pub layernorm: LayerNorm<B>,
    pub encoder: Blip2QFormerEncoder<B>,
}

/// The layers.
#[derive(Module, Debug)]
pub struct Blip2QFormerEncoder<B: Backend> {
    pub layer: Vec<Blip2QFormerLayer<B>>,
}

/// Self-attention of the queries, cross-attention to the image in some layers, feed-forward; post-norm.
#[derive(Module, Debug)]
pub struct Blip2QFormerLayer<B: Backend> {
    pub attention: Blip2QFormerAttention<B>,
    pub crossattention: Option<Blip2QFormerAttention<B>>,
    /// The text branch, present when the configuration asks for it; captions do not pass through it.
    pub intermediate: Option<Blip2QFormerIntermediate<B>>,
    pub output: Option<Blip2QFormerOutput<B>>,
    pub intermediate_query: Blip2QFormerIntermediate<B>,
    pub output_query: Blip2QFormerOutput<B>,
}

/// Attention with its residual and norm.
#[derive(Module, Debug)]
pub struct Blip2QFormerAttention<B: Backend> {
    pub attention: Blip2QFormerMultiHeadAttention<B>,
    pub output: Blip2QFormerOutput<B>,
}

/// The three projections.
#[derive(Module, Debug)]
pub struct Blip2QFormerMultiHeadAttention<B: Backend> {
    pub query: Linear<B>,
    pub key: Linear<B>,
    pub value: Linear<B>,
    num_heads: usize,
}

/// First half of the feed-forward part.
#[derive(Module, Debug)]
pub struct Blip2QFormerIntermediate<B: Backend> {
    pub dense: Linear<B>,
    #[module(skip)]
    activation: Activation,
}

/// Projection, residual, norm.
#[derive(Module, Debug)]
pub struct Blip2QFormerOutput<B: Backend> {
    pub dense: Linear<B>,
    pub LayerNorm: LayerNorm<B>,
}

impl Blip2QFormerConfig {
    /// A Q-Former with random weights, over an image encoder `image_width` wide.
    pub fn init<B: Backend>(
        &self,
        image_width: usize,
        initializer_range: f64,
        device: &B::Device,
    ) -> Blip2QFormerModel<B> {
        let layer = (0..self.num_hidden_layers)
            .map(|index| {
                let looks = index % self.cross_attention_frequency == 0;
                let text = self.use_qformer_text_input;
                let wide = self.intermediate_size;
                Blip2QFormerLayer {
                    attention: self.attention(self.hidden_size, initializer_range, device),
                    crossattention: looks
                        .then(|| self.attention(image_width, initializer_range, device)),
                    intermediate: text.then(|| self.intermediate(initializer_range, device)),
                    output: text.then(|| self.output(wide, initializer_range, device)),
                    intermediate_query: self.intermediate(initializer_range, device),
                    output_query: self.output(wide, initializer_range, device),
                }
            })
            .collect();
        Blip2QFormerModel {
            layernorm: self.norm(device),
            encoder: Blip2QFormerEncoder { layer },
        }
    }

    fn norm<B: Backend>(&self, device: &B::Device) -> LayerNorm<B> {
        LayerNormConfig::new(self.hidden_size)
            .with_epsilon(self.layer_norm_eps)
            .init(device)
    }

    fn attention<B: Backend>(
        &self,
        key_width: usize,
        range: f64,
        device: &B::Device,
    ) -> Blip2QFormerAttention<B> {
        Blip2QFormerAttention {
            attention: Blip2QFormerMultiHeadAttention {
                query: linear(self.hidden_size, self.hidden_size, range, device),
                key: linear(key_width, self.hidden_size, range, device),
                value: linear(key_width, self.hidden_size, range, device),
                num_heads: self.num_attention_heads,
            },
            output: self.output(self.hidden_size, range, device),
        }
    }

    fn intermediate<B: Backend>(
        &self,
        range: f64,
        device: &B::Device,
    ) -> Blip2QFormerIntermediate<B> {
        Blip2QFormerIntermediate {
            dense: linear(self.hidden_size, self.intermediate_size, range, device),
            activation: self.hidden_act,
        }
    }

    fn output<B: Backend>(
        &self,
        from: usize,
        range: f64,
        device: &B::Device,
    ) -> Blip2QFormerOutput<B> {
        Blip2QFormerOutput {
            dense: linear(from, self.hidden_size, range, device),
            LayerNorm: self.norm(device),
        }
    }
}

fn linear<B: Backend>(from: usize, to: usize, range: f64, device: &B::Device) -> Linear<B> {
    let normal = Initializer::Normal {
        mean: 0.0,
        std: range,
    };
    LinearConfig::new(from, to)
        .with_initializer(normal)
        .init(device)
}

impl<B: Backend> Blip2QFormerModel<B> {
    /// What the queries learned from the image.
    ///
    /// # Shapes
    /// - query_embeds `[batch, queries, width]`, image `[batch, image tokens, image width]` → `[batch, queries, width]`
    pub fn forward(&self, query_embeds: Tensor<B, 3>, image: Tensor<B, 3>) -> Tensor<B, 3> {
        let mut states = widened_layer_norm(&self.layernorm, query_embeds);
        for layer in &self.encoder.layer {
            states = layer.forward(states, &image);
        }
        states
    }
}

impl<B: Backend> Blip2QFormerLayer<B> {
    fn forward(&self, states: Tensor<B, 3>, image: &Tensor<B, 3>) -> Tensor<B, 3> {
        let mut states = self.attention.forward(states.clone(), states);
        if let Some(look) = &self.crossattention {
            states = look.forward(states, image.clone());
        }
        let inner = self.intermediate_query.forward(states.clone());
        self.output_query.forward(inner, states)
    }
}

impl<B: Backend> Blip2QFormerAttention<B> {
    fn forward(&self, states: Tensor<B, 3>, seen: Tensor<B, 3>) -> Tensor<B, 3> {
        let inner = &self.attention;
        let query = split_heads(inner.query.forward(states.clone()), inner.num_heads);
        let key = split_heads(inner.key.forward(seen.clone()), inner.num_heads);
        let value = split_heads(inner.value.forward(seen), inner.num_heads);
        self.output.forward(attend(query, key, value, None), states)
    }
}

impl<B: Backend> Blip2QFormerIntermediate<B> {
    fn forward(&self, states: Tensor<B, 3>) -> Tensor<B, 3> {
        self.activation.forward(self.dense.forward(states))
    }
}

impl<B: Backend> Blip2QFormerOutput<B> {
    fn forward(&self, states: Tensor<B, 3>, residual: Tensor<B, 3>) -> Tensor<B, 3> {
        self.LayerNorm
            .forward(self.dense.forward(states) + residual)
    }
}
