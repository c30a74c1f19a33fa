//! CLIP's vision tower (`CLIPVisionModel`).

use burn::module::{Initializer, Module, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Embedding, EmbeddingConfig, LayerNorm};
use burn::tensor::{Int, Tensor, backend::Backend};

use super::config::ClipVisionConfig;
use super::encoder::{ClipEncoder, EncoderSizes};
use crate::nn::precision::widened_layer_norm;

/// Pictures to hidden states.
#[derive(Module, Debug)]
pub struct ClipVisionModel<B: Backend> {
    /// Patches, class token and positions.
    pub embeddings: ClipVisionEmbeddings<B>,
    /// Before the first layer; the hub spells it so.
    pub pre_layrnorm: LayerNorm<B>,
    /// The layers.
    pub encoder: ClipEncoder<B>,
    /// On the pooled state.
    pub post_layernorm: LayerNorm<B>,
}

/// A class token and one token per patch, with learned positions.
#[derive(Module, Debug)]
pub struct ClipVisionEmbeddings<B: Backend> {
    /// `[width]`.
    pub class_embedding: Param<Tensor<B, 1>>,
    /// A convolution whose stride is its kernel, without bias.
    pub patch_embedding: Conv2d<B>,
    /// `[patches + 1, width]`.
    pub position_embedding: Embedding<B>,
}

/// What the vision tower says of a batch.
#[derive(Debug, Clone)]
pub struct ClipVisionOutput<B: Backend> {
    /// States of class token and patches after the last layer, `[batch, patches + 1, width]`.
    pub last_hidden_state: Tensor<B, 3>,
    /// The class token's state behind the last norm, `[batch, width]`.
    pub pooler_output: Tensor<B, 2>,
}

impl ClipVisionConfig {
    /// A tower with arbitrary weights, to be loaded or initialised.
    pub fn init<B: Backend>(&self, device: &B::Device) -> ClipVisionModel<B> {
        let sizes = EncoderSizes {
            width: self.hidden_size,
            inner_width: self.intermediate_size,
            num_layers: self.num_hidden_layers,
            num_heads: self.num_attention_heads,
            activation: self.hidden_act,
            epsilon: self.layer_norm_eps,
        };
        let patch = [self.patch_size, self.patch_size];
        ClipVisionModel {
            embeddings: ClipVisionEmbeddings {
                class_embedding: Initializer::Zeros.init([self.hidden_size], device),
                patch_embedding: Conv2dConfig::new([self.num_channels, self.hidden_size], patch)
                    .with_stride(patch)
                    .with_bias(false)
                    .init(device),
                position_embedding: EmbeddingConfig::new(self.num_positions(), self.hidden_size)
                    .init(device),
            },
            pre_layrnorm: sizes.norm(device),
            encoder: sizes.init(device),
            post_layernorm: sizes.norm(device),
        }
    }
}

impl<B: Backend> ClipVisionModel<B> {
    /// States of the preprocessed pictures `[batch, channels, side, side]`.
    pub fn forward(&self, pixel_values: Tensor<B, 4>) -> ClipVisionOutput<B> {
        self.forward_kept(pixel_values, None)
    }

    /// As [`ClipVisionModel::forward`], but only the tokens at the places `kept` are looked at (0 is the class token
    /// and must come first, patches follow). Training on half of the patches costs half (Li et al., FLIP, 2023).
    pub fn forward_kept(
        &self,
        pixel_values: Tensor<B, 4>,
        kept: Option<Tensor<B, 1, Int>>,
    ) -> ClipVisionOutput<B> {
        let mut states = self.embeddings.forward(pixel_values);
        if let Some(kept) = kept {
            states = states.select(1, kept);
        }
        let states = widened_layer_norm(&self.pre_layrnorm, states);
        let last_hidden_state = self.encoder.forward(states, None);
        let [batch, _, width] = last_hidden_state.dims();
        let class = last_hidden_state
            .clone()
            .slice([0..batch, 0..1, 0..width])
            .reshape([batch, width]);
        ClipVisionOutput {
            last_hidden_state,
            pooler_output: widened_layer_norm(&self.post_layernorm, class),
        }
    }
}

impl<B: Backend> ClipVisionEmbeddings<B> {
    /// `[batch, channels, side, side]` to `[batch, patches + 1, width]`.
    pub fn forward(&self, pixel_values: Tensor<B, 4>) -> Tensor<B, 3> {
        let [batch, _, height, width] = pixel_values.dims();
        let patches = self.patch_embedding.forward(pixel_values);
        let patches: Tensor<B, 3> = patches.flatten::<3>(2, 3).swap_dims(1, 2);
        let [_, num_patches, hidden] = patches.dims();
        let positions = self.position_embedding.weight.val();
        assert_eq!(
            num_patches + 1,
            positions.dims()[0],
            "pictures of {width}×{height} pixels are not of the size that the vision tower was made for"
        );
        let class = self
            .class_embedding
            .val()
            .reshape([1, 1, hidden])
            .expand([batch, 1, hidden]);
        Tensor::cat(vec![class, patches], 1) + positions.unsqueeze::<3>()
    }
}
