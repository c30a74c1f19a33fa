//! Transformer blocks between the convolutions. Source: diffusers `Attention`, `BasicTransformerBlock`,
//! `Transformer2DModel`.

use burn::module::Module;
use burn::nn::conv::Conv2d;
use burn::nn::{
    Dropout, DropoutConfig, GroupNorm, LayerNorm, LayerNormConfig, Linear, LinearConfig,
};
use burn::tensor::{Tensor, backend::Backend};

use super::conditions::Conditions;
use super::resnet::{convolution, group_norm};
use crate::nn::activation::gated_gelu;
use crate::nn::attention::attend_tokens;
use crate::nn::convolution::{as_map, laid_out, to_map, to_tokens};
use crate::nn::linear::over_tokens;
use crate::nn::norm;
use crate::nn::precision::widened_layer_norm;

/// The dropout that the hub's lists count as an element; it never drops here.
fn no_dropout() -> Dropout {
    DropoutConfig::new(0.0).init()
}

/// Multi-head attention without biases on its inputs; keys and values come from `context`.
#[derive(Module, Debug)]
pub struct CrossAttention<B: Backend> {
    pub to_q: Linear<B>,
    pub to_k: Linear<B>,
    pub to_v: Linear<B>,
    pub to_out: (Linear<B>, Dropout),
    pub num_heads: usize,
}

impl<B: Backend> CrossAttention<B> {
    /// Queries of `width`, keys and values of `context_width`.
    pub fn new(width: usize, context_width: usize, num_heads: usize, device: &B::Device) -> Self {
        let input = |from| LinearConfig::new(from, width).with_bias(false).init(device);
        Self {
            to_q: input(width),
            to_k: input(context_width),
            to_v: input(context_width),
            to_out: (LinearConfig::new(width, width).init(device), no_dropout()),
            num_heads,
        }
    }

    /// What queries will look at: keys and values of `context`, `[batch, keys, context width]`.
    pub fn read(&self, context: Tensor<B, 3>) -> KeyValue<B> {
        KeyValue {
            key: over_tokens(&self.to_k, context.clone()),
            value: over_tokens(&self.to_v, context),
        }
    }

    /// `[batch, queries, width]` → the same shape.
    pub fn attend(&self, hidden: Tensor<B, 3>, to: KeyValue<B>) -> Tensor<B, 3> {
        let query = over_tokens(&self.to_q, hidden);
        let attended = attend_tokens(query, to.key, to.value, self.num_heads);
        over_tokens(&self.to_out.0, attended)
    }
}

/// Keys and values of one attention, `[batch, keys, heads · head width]`.
#[derive(Debug, Clone)]
pub struct KeyValue<B: Backend> {
    pub key: Tensor<B, 3>,
    pub value: Tensor<B, 3>,
}

/// `x · gelu(gate)`, both from one linear layer.
#[derive(Module, Debug)]
pub struct Geglu<B: Backend> {
    pub proj: Linear<B>,
}

impl<B: Backend> Geglu<B> {
    /// `[batch, tokens, in]` → `[batch, tokens, out]`.
    pub fn forward(&self, hidden: Tensor<B, 3>) -> Tensor<B, 3> {
        gated_gelu(over_tokens(&self.proj, hidden))
    }
}

/// The gated feed-forward layer, four times as wide inside.
#[derive(Module, Debug)]
pub struct FeedForward<B: Backend> {
    pub net: (Geglu<B>, Dropout, Linear<B>),
}

impl<B: Backend> FeedForward<B> {
    fn new(width: usize, device: &B::Device) -> Self {
        let inner = 4 * width;
        let gated = Geglu {
            proj: LinearConfig::new(width, 2 * inner).init(device),
        };
        Self {
            net: (
                gated,
                no_dropout(),
                LinearConfig::new(inner, width).init(device),
            ),
        }
    }

    fn forward(&self, hidden: Tensor<B, 3>) -> Tensor<B, 3> {
        over_tokens(&self.net.2, self.net.0.forward(hidden))
    }
}

/// Self-attention, attention to the conditioning, feed-forward; each on a normalised copy, added back.
#[derive(Module, Debug)]
pub struct BasicTransformerBlock<B: Backend> {
    pub norm1: LayerNorm<B>,
    pub attn1: CrossAttention<B>,
    pub norm2: LayerNorm<B>,
    pub attn2: CrossAttention<B>,
    pub norm3: LayerNorm<B>,
    pub ff: FeedForward<B>,
}

impl<B: Backend> BasicTransformerBlock<B> {
    fn new(width: usize, context_width: usize, num_heads: usize, device: &B::Device) -> Self {
        let norm = || LayerNormConfig::new(width).init(device);
        Self {
            norm1: norm(),
            attn1: CrossAttention::new(width, width, num_heads, device),
            norm2: norm(),
            attn2: CrossAttention::new(width, context_width, num_heads, device),
            norm3: norm(),
            ff: FeedForward::new(width, device),
        }
    }

    fn forward(&self, hidden: Tensor<B, 3>, prompt: KeyValue<B>) -> Tensor<B, 3> {
        let normed = widened_layer_norm(&self.norm1, hidden.clone());
        let own = self.attn1.read(normed.clone());
        let hidden = self.attn1.attend(normed, own) + hidden;
        let hidden = self
            .attn2
            .attend(widened_layer_norm(&self.norm2, hidden.clone()), prompt)
            + hidden;
        self.ff
            .forward(widened_layer_norm(&self.norm3, hidden.clone()))
            + hidden
    }
}

/// The layer between feature map and tokens: SD-1.x has a 1×1 convolution, SD-2.x a linear layer.
#[derive(Module, Debug)]
pub enum Projection<B: Backend> {
    Convolution(Conv2d<B>),
    Linear(Linear<B>),
}

impl<B: Backend> Projection<B> {
    fn new(width: usize, linear: bool, device: &B::Device) -> Self {
        if linear {
            Self::Linear(LinearConfig::new(width, width).init(device))
        } else {
            Self::Convolution(convolution([width, width], 1, device))
        }
    }
}

/// A feature map as a sequence of its cells, through transformer blocks, and back.
#[derive(Module, Debug)]
pub struct Transformer2DModel<B: Backend> {
    pub norm: GroupNorm<B>,
    pub proj_in: Projection<B>,
    pub transformer_blocks: Vec<BasicTransformerBlock<B>>,
    pub proj_out: Projection<B>,
}

/// The shape of one `Transformer2DModel`.
#[derive(Debug, Clone, Copy)]
pub struct TransformerOptions {
    pub num_heads: usize,
    pub context_width: usize,
    pub num_layers: usize,
    pub norm_groups: usize,
    pub linear_projection: bool,
}

impl<B: Backend> Transformer2DModel<B> {
    /// A new stack on `width` channels.
    pub fn new(width: usize, options: TransformerOptions, device: &B::Device) -> Self {
        let block =
            || BasicTransformerBlock::new(width, options.context_width, options.num_heads, device);
        Self {
            norm: group_norm(options.norm_groups, width, 1e-6, device),
            proj_in: Projection::new(width, options.linear_projection, device),
            transformer_blocks: (0..options.num_layers).map(|_| block()).collect(),
            proj_out: Projection::new(width, options.linear_projection, device),
        }
    }

    /// Appends what the blocks read of a prompt, `[batch, tokens, context width]`.
    pub(super) fn read(&self, states: &Tensor<B, 3>, prompt: &mut Vec<KeyValue<B>>) {
        let blocks = self.transformer_blocks.iter();
        prompt.extend(blocks.map(|block| block.attn2.read(states.clone())));
    }

    /// Keeps the shape `[batch, channels, height, width]`.
    pub(super) fn forward(
        &self,
        input: Tensor<B, 4>,
        conditions: &mut Conditions<'_, B>,
    ) -> Tensor<B, 4> {
        let [_, _, height, width] = input.dims();
        let normed = norm::group_norm(&self.norm, input.clone());
        let mut hidden = match &self.proj_in {
            Projection::Convolution(convolution) => to_tokens(convolution, normed),
            Projection::Linear(linear) => over_tokens(linear, laid_out(normed)),
        };
        for block in &self.transformer_blocks {
            hidden = block.forward(hidden, conditions.next_prompt());
        }
        let output = match &self.proj_out {
            Projection::Convolution(convolution) => to_map(convolution, hidden, [height, width]),
            Projection::Linear(linear) => as_map(over_tokens(linear, hidden), [height, width]),
        };
        output + input
    }
}
