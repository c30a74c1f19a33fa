//! The denoising network. Source: diffusers `UNet2DConditionModel` (the SD-1.x and SD-2.x options, and those of
//! the distilled BK-SDM).

use burn::module::Module;
use burn::nn::GroupNorm;
use burn::nn::conv::Conv2d;
use burn::tensor::activation::silu;
use burn::tensor::{Tensor, backend::Backend};

use super::attention::KeyValue;
use super::conditions::{Conditions, PromptStates, TimeStates};
use super::config::{DiffusionConfigError, UNetConfig};
use super::resnet::{convolution, group_norm};
use super::unet_blocks::{DownBlock, Level, MidBlock, UpBlock};
use crate::nn::convolution::convolve;
use crate::nn::host::over_rows;
use crate::nn::norm::group_norm_silu;
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
        let device = sample.device();
        let [batch, ..] = sample.dims();
        over_rows(batch, &device, |rows| {
            let (start, length) = (rows.start, rows.len());
            let prompt = self.read_prompt(encoder_hidden_states.clone().narrow(0, start, length));
            let times = self.read_times(timestep.clone().narrow(0, start, length));
            self.predict(sample.clone().narrow(0, start, length), &times, &prompt)
        })
    }

    /// What the network reads of a prompt, `[batch, tokens, cross-attention width]`: the same at every step.
    pub fn read_prompt(&self, encoder_hidden_states: Tensor<B, 3>) -> PromptStates<B> {
        let mut blocks: Vec<KeyValue<B>> = Vec::new();
        for level in self.levels() {
            level.read(&encoder_hidden_states, &mut blocks);
        }
        PromptStates { blocks }
    }

    /// What the network is told of time steps, `[steps]` (0 to 999, may be fractional): the same for every image.
    pub fn read_times(&self, timesteps: Tensor<B, 1>) -> TimeStates<B> {
        let weight = self.conv_in.weight.val();
        let [first, ..] = weight.dims();
        let features = sinusoidal(timesteps, first, self.flip_sin_to_cos, self.freq_shift);
        // The steps come in f32: bf16 cannot tell 998 from 999.
        let features = features.cast(weight.dtype());
        let time = silu(self.time_embedding.forward(features));
        let mut shifts = Vec::new();
        for level in self.levels() {
            level.tell(&time, &mut shifts);
        }
        TimeStates { shifts }
    }

    /// As [`forward`](Self::forward), of states computed before: `times` of a step per row, `prompt` of a row each.
    pub fn predict(
        &self,
        sample: Tensor<B, 4>,
        times: &TimeStates<B>,
        prompt: &PromptStates<B>,
    ) -> Tensor<B, 4> {
        let conditions = &mut Conditions::new(prompt, times);
        let mut hidden = convolve(&self.conv_in, sample);
        let mut skips = vec![hidden.clone()];
        for block in &self.down_blocks {
            hidden = block.forward(hidden, conditions, &mut skips);
        }
        if let Some(block) = &self.mid_block {
            hidden = block.forward(hidden, conditions);
        }
        for block in &self.up_blocks {
            hidden = block.forward(hidden, conditions, &mut skips);
        }
        convolve(&self.conv_out, group_norm_silu(&self.conv_norm_out, hidden))
    }

    /// In the order of the forward pass.
    fn levels(&self) -> impl Iterator<Item = &dyn Level<B>> {
        let down = self.down_blocks.iter().map(|block| block as &dyn Level<B>);
        let mid = self.mid_block.iter().map(|block| block as &dyn Level<B>);
        let up = self.up_blocks.iter().map(|block| block as &dyn Level<B>);
        down.chain(mid).chain(up)
    }
}
