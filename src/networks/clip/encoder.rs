//! The pre-norm transformer that both towers share (`CLIPEncoder`).

use burn::module::Module;
use burn::nn::{LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::tensor::activation::softmax;
use burn::tensor::{Bool, Tensor, backend::Backend};

use crate::nn::activation::Activation;
use crate::nn::host::over_rows;
use crate::nn::linear::over_tokens;
use crate::nn::precision::widened_layer_norm;

/// The layers.
#[derive(Module, Debug)]
pub struct ClipEncoder<B: Backend> {
    /// In order.
    pub layers: Vec<ClipEncoderLayer<B>>,
}

/// Attention, then feed-forward, each behind a norm and round a residual.
#[derive(Module, Debug)]
pub struct ClipEncoderLayer<B: Backend> {
    /// Attention.
    pub self_attn: ClipAttention<B>,
    /// Before the attention.
    pub layer_norm1: LayerNorm<B>,
    /// Feed-forward part.
    pub mlp: ClipMlp<B>,
    /// Before the feed-forward part.
    pub layer_norm2: LayerNorm<B>,
}

/// Multi-head self-attention.
#[derive(Module, Debug)]
pub struct ClipAttention<B: Backend> {
    /// Keys.
    pub k_proj: Linear<B>,
    /// Values.
    pub v_proj: Linear<B>,
    /// Queries.
    pub q_proj: Linear<B>,
    /// Joins the heads.
    pub out_proj: Linear<B>,
    num_heads: usize,
}

/// The feed-forward part.
#[derive(Module, Debug)]
pub struct ClipMlp<B: Backend> {
    /// Out to the inner width.
    pub fc1: Linear<B>,
    /// Back.
    pub fc2: Linear<B>,
    #[module(skip)]
    activation: Activation,
}

/// Sizes of an encoder.
pub(super) struct EncoderSizes {
    pub width: usize,
    pub inner_width: usize,
    pub num_layers: usize,
    pub num_heads: usize,
    pub activation: Activation,
    pub epsilon: f64,
}

impl EncoderSizes {
    pub(super) fn norm<B: Backend>(&self, device: &B::Device) -> LayerNorm<B> {
        LayerNormConfig::new(self.width)
            .with_epsilon(self.epsilon)
            .init(device)
    }

    pub(super) fn init<B: Backend>(&self, device: &B::Device) -> ClipEncoder<B> {
        let linear = |from: usize, to: usize| LinearConfig::new(from, to).init(device);
        let layer = |_| ClipEncoderLayer {
            self_attn: ClipAttention {
                k_proj: linear(self.width, self.width),
                v_proj: linear(self.width, self.width),
                q_proj: linear(self.width, self.width),
                out_proj: linear(self.width, self.width),
                num_heads: self.num_heads,
            },
            layer_norm1: self.norm(device),
            mlp: ClipMlp {
                fc1: linear(self.width, self.inner_width),
                fc2: linear(self.inner_width, self.width),
                activation: self.activation,
            },
            layer_norm2: self.norm(device),
        };
        ClipEncoder {
            layers: (0..self.num_layers).map(layer).collect(),
        }
    }
}

impl<B: Backend> ClipEncoder<B> {
    /// The states after the last layer.
    ///
    /// # Shapes
    /// - states `[batch, tokens, width]`
    /// - hidden `[batch or 1, 1, tokens, tokens]`: true where a query must not look
    pub fn forward(
        &self,
        states: Tensor<B, 3>,
        hidden: Option<Tensor<B, 4, Bool>>,
    ) -> Tensor<B, 3> {
        let ([rows, ..], device) = (states.dims(), states.device());
        over_rows(rows, &device, |rows| {
            let states = states.clone().narrow(0, rows.start, rows.len());
            let hidden = hidden.clone().map(|hidden| match hidden.dims() {
                [1, ..] => hidden,
                _ => hidden.narrow(0, rows.start, rows.len()),
            });
            self.layers.iter().fold(states, |states, layer| {
                layer.forward(states, hidden.clone())
            })
        })
    }

    /// The input and the states after each layer, `layers + 1` in all.
    pub fn hidden_states(
        &self,
        states: Tensor<B, 3>,
        hidden: Option<Tensor<B, 4, Bool>>,
    ) -> Vec<Tensor<B, 3>> {
        let mut all = vec![states.clone()];
        let mut states = states;
        for layer in &self.layers {
            states = layer.forward(states, hidden.clone());
            all.push(states.clone());
        }
        all
    }
}

impl<B: Backend> ClipEncoderLayer<B> {
    /// `[batch, tokens, width]` to the same.
    pub fn forward(
        &self,
        states: Tensor<B, 3>,
        hidden: Option<Tensor<B, 4, Bool>>,
    ) -> Tensor<B, 3> {
        let attended = self.self_attn.forward(
            widened_layer_norm(&self.layer_norm1, states.clone()),
            hidden,
        );
        let states = states + attended;
        let fed = self
            .mlp
            .forward(widened_layer_norm(&self.layer_norm2, states.clone()));
        states + fed
    }
}

impl<B: Backend> ClipAttention<B> {
    /// `[batch, tokens, width]` to the same.
    pub fn forward(
        &self,
        states: Tensor<B, 3>,
        hidden: Option<Tensor<B, 4, Bool>>,
    ) -> Tensor<B, 3> {
        let [batch, tokens, width] = states.dims();
        let head_width = width / self.num_heads;
        let heads = |states: Tensor<B, 3>| -> Tensor<B, 4> {
            states
                .reshape([batch, tokens, self.num_heads, head_width])
                .swap_dims(1, 2)
        };
        let query = heads(over_tokens(&self.q_proj, states.clone()));
        let key = heads(over_tokens(&self.k_proj, states.clone()));
        let value = heads(over_tokens(&self.v_proj, states));
        let query = query.mul_scalar((head_width as f64).powf(-0.5));
        let mut scores = query.matmul(key.swap_dims(2, 3));
        if let Some(hidden) = hidden {
            // Finite, as transformers' eager attention: a row that sees nothing must not become NaN.
            scores = scores
                .clone()
                .mask_fill(hidden.expand(scores.dims()), -1e30);
        }
        let joined = softmax(scores, 3).matmul(value).swap_dims(1, 2);
        over_tokens(&self.out_proj, joined.reshape([batch, tokens, width]))
    }
}

impl<B: Backend> ClipMlp<B> {
    /// `[batch, tokens, width]` to the same.
    pub fn forward(&self, states: Tensor<B, 3>) -> Tensor<B, 3> {
        let inner = self.activation.forward(over_tokens(&self.fc1, states));
        over_tokens(&self.fc2, inner)
    }
}
