//! The denoising network. Source: diffusers `UNet2DConditionModel` (the SD-1.x and SD-2.x options, and those of
//! the distilled BK-SDM).

use burn::module::Module;
use burn::nn::GroupNorm;
use burn::nn::conv::Conv2d;
use burn::tensor::activation::silu;
use burn::tensor::{Tensor, backend::Backend};

use super::config::{DiffusionConfigError, UNetConfig};
use super::resnet::{convolution, group_norm};
use super::unet_blocks::{DownBlock, MidBlock, UpBlock};
use crate::nn::precision::widened_norm;
use crate::nn::timestep::{TimestepEmbedding, sinusoidal};

/// Predicts noise (or velocity) in latents, given a time step and conditioning states.
#[derive(Module, Debug)]
pub struct UNet2DConditionModel<B: Backend> {
    pub conv_in: Conv2d<B>,
    pub time_embedding: TimestepEmbedding<B>,
    pub down_blocks: Vec<DownBlock<B>>,
    /// The distilled networks have none.
    pub mid_block: Option<MidBlock<B>>,
    pub up_blocks: Vec<UpBlock<B>>,
    pub conv_norm_out: GroupNorm<B>,
    pub conv_out: Conv2d<B>,
    pub flip_sin_to_cos: bool,
    pub freq_shift: f64,
}

impl UNetConfig {
    /// A network with fresh weights.
    ///
    /// # Errors
    /// When the configuration asks for what this implementation does not have.
    pub fn init<B: Backend>(
        &self,
        device: &B::Device,
    ) -> Result<UNet2DConditionModel<B>, DiffusionConfigError> {
        self.validate()?;
        let first = self.block_out_channels[0];
        let levels = self.block_out_channels.len();
        Ok(UNet2DConditionModel {
            conv_in: convolution([self.in_channels, first], self.conv_in_kernel, device),
            time_embedding: TimestepEmbedding::new(first, self.time_embedding_width(), device),
            down_blocks: (0..levels)
                .map(|level| DownBlock::new(self, level, device))
                .collect(),
            mid_block: self
                .mid_block_type
                .as_deref()
                .map(|kind| MidBlock::new(self, kind, device)),
            up_blocks: (0..levels)
                .map(|index| UpBlock::new(self, index, device))
                .collect(),
            conv_norm_out: group_norm(self.norm_num_groups, first, self.norm_eps, device),
            conv_out: convolution([first, self.out_channels], self.conv_out_kernel, device),
            flip_sin_to_cos: self.flip_sin_to_cos,
            freq_shift: self.freq_shift,
        })
    }
}

impl<B: Backend> UNet2DConditionModel<B> {
    /// The network's prediction for noised latents.
    ///
    /// # Shapes
    /// `sample` `[batch, in channels, height, width]`, `timestep` `[batch]` (0 to 999, may be fractional),
    /// `encoder_hidden_states` `[batch, tokens, cross-attention width]` → `[batch, out channels, height, width]`.
    pub fn forward(
        &self,
        sample: Tensor<B, 4>,
        timestep: Tensor<B, 1>,
        encoder_hidden_states: Tensor<B, 3>,
    ) -> Tensor<B, 4> {
        let weight = self.conv_in.weight.val();
        let [first, ..] = weight.dims();
        let features = sinusoidal(timestep, first, self.flip_sin_to_cos, self.freq_shift);
        // The steps come in f32: bf16 cannot tell 998 from 999.
        let features = features.cast(weight.dtype());
        let time = silu(self.time_embedding.forward(features));

        let mut hidden = self.conv_in.forward(sample);
        let mut skips = vec![hidden.clone()];
        for block in &self.down_blocks {
            hidden = block.forward(hidden, &time, &encoder_hidden_states, &mut skips);
        }
        if let Some(block) = &self.mid_block {
            hidden = block.forward(hidden, &time, &encoder_hidden_states);
        }
        for block in &self.up_blocks {
            hidden = block.forward(hidden, &time, &encoder_hidden_states, &mut skips);
        }
        self.conv_out
            .forward(silu(widened_norm(&self.conv_norm_out, hidden)))
    }
}
