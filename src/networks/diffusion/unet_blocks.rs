//! The denoising network's levels. Source: diffusers `DownBlock2D`, `CrossAttnDownBlock2D`,
//! `UNetMidBlock2DCrossAttn`, `UNetMidBlock2D`, `UpBlock2D`, `CrossAttnUpBlock2D`; a block without attention is one whose
//! `attentions` are empty.

use burn::module::Module;
use burn::tensor::{Tensor, backend::Backend};

use super::attention::{Transformer2DModel, TransformerOptions};
use super::config::UNetConfig;
use super::resnet::{Downsample2D, NormOptions, ResnetBlock2D, Upsample2D};

fn norm_options(config: &UNetConfig) -> NormOptions {
    NormOptions {
        groups: config.norm_num_groups,
        epsilon: config.norm_eps,
    }
}

fn transformer<B: Backend>(
    config: &UNetConfig,
    level: usize,
    device: &B::Device,
) -> Transformer2DModel<B> {
    let options = TransformerOptions {
        num_heads: config.num_heads(level),
        context_width: config.cross_attention_dim,
        num_layers: config.transformer_layers_per_block.at(level),
        norm_groups: config.norm_num_groups,
        linear_projection: config.use_linear_projection,
    };
    Transformer2DModel::new(config.block_out_channels[level], options, device)
}

/// One level on the way down.
#[derive(Module, Debug)]
pub struct DownBlock<B: Backend> {
    pub resnets: Vec<ResnetBlock2D<B>>,
    pub attentions: Vec<Transformer2DModel<B>>,
    pub downsamplers: Vec<Downsample2D<B>>,
}

impl<B: Backend> DownBlock<B> {
    /// The block of `level`, counted from the highest resolution.
    pub fn new(config: &UNetConfig, level: usize, device: &B::Device) -> Self {
        let output = config.block_out_channels[level];
        let input = config.block_out_channels[level.saturating_sub(1)];
        let num_layers = config.layers_per_block.at(level);
        let time_width = Some(config.time_embedding_width());
        let attends = config.down_block_types[level] == "CrossAttnDownBlock2D";
        let last = level + 1 == config.block_out_channels.len();
        Self {
            resnets: (0..num_layers)
                .map(|layer| {
                    let from = if layer == 0 { input } else { output };
                    ResnetBlock2D::new([from, output], time_width, norm_options(config), device)
                })
                .collect(),
            attentions: (0..if attends { num_layers } else { 0 })
                .map(|_| transformer(config, level, device))
                .collect(),
            downsamplers: (0..usize::from(!last))
                .map(|_| Downsample2D::new(output, config.downsample_padding, device))
                .collect(),
        }
    }

    /// The level's output; every intermediate state is pushed on `skips` for the way up.
    pub fn forward(
        &self,
        mut hidden: Tensor<B, 4>,
        time: &Tensor<B, 2>,
        context: &Tensor<B, 3>,
        skips: &mut Vec<Tensor<B, 4>>,
    ) -> Tensor<B, 4> {
        for (layer, resnet) in self.resnets.iter().enumerate() {
            hidden = resnet.forward(hidden, Some(time.clone()));
            if let Some(attention) = self.attentions.get(layer) {
                hidden = attention.forward(hidden, context.clone());
            }
            skips.push(hidden.clone());
        }
        for downsampler in &self.downsamplers {
            hidden = downsampler.forward(hidden);
            skips.push(hidden.clone());
        }
        hidden
    }
}

/// The lowest resolution: residual, attention, residual.
#[derive(Module, Debug)]
pub struct MidBlock<B: Backend> {
    pub resnets: Vec<ResnetBlock2D<B>>,
    pub attentions: Vec<Transformer2DModel<B>>,
}

impl<B: Backend> MidBlock<B> {
    /// A new middle on the last level's channels: `kind` is the configuration's `mid_block_type`. One without attention
    /// has one residual block.
    pub fn new(config: &UNetConfig, kind: &str, device: &B::Device) -> Self {
        let level = config.block_out_channels.len() - 1;
        let width = config.block_out_channels[level];
        let time_width = Some(config.time_embedding_width());
        let resnet =
            || ResnetBlock2D::new([width, width], time_width, norm_options(config), device);
        let attends = usize::from(kind == "UNetMidBlock2DCrossAttn");
        Self {
            resnets: (0..=attends).map(|_| resnet()).collect(),
            attentions: (0..attends)
                .map(|_| transformer(config, level, device))
                .collect(),
        }
    }

    /// Keeps the shape.
    pub fn forward(
        &self,
        hidden: Tensor<B, 4>,
        time: &Tensor<B, 2>,
        context: &Tensor<B, 3>,
    ) -> Tensor<B, 4> {
        let mut hidden = self.resnets[0].forward(hidden, Some(time.clone()));
        for (attention, resnet) in self.attentions.iter().zip(&self.resnets[1..]) {
            hidden = attention.forward(hidden, context.clone());
            hidden = resnet.forward(hidden, Some(time.clone()));
        }
        hidden
    }
}

/// One level on the way up; every residual block also reads one state kept on the way down.
#[derive(Module, Debug)]
pub struct UpBlock<B: Backend> {
    pub resnets: Vec<ResnetBlock2D<B>>,
    pub attentions: Vec<Transformer2DModel<B>>,
    pub upsamplers: Vec<Upsample2D<B>>,
}

impl<B: Backend> UpBlock<B> {
    /// The `index`-th block on the way up (0 is the lowest resolution).
    pub fn new(config: &UNetConfig, index: usize, device: &B::Device) -> Self {
        let levels = config.block_out_channels.len();
        let level = levels - 1 - index;
        let output = config.block_out_channels[level];
        let below = config.block_out_channels[(level + 1).min(levels - 1)];
        let above = config.block_out_channels[level.saturating_sub(1)];
        let num_layers = config.layers_per_block.at(level) + 1;
        let time_width = Some(config.time_embedding_width());
        let attends = config.up_block_types[index] == "CrossAttnUpBlock2D";
        Self {
            resnets: (0..num_layers)
                .map(|layer| {
                    let skip = if layer + 1 == num_layers {
                        above
                    } else {
                        output
                    };
                    let from = if layer == 0 { below } else { output };
                    ResnetBlock2D::new(
                        [from + skip, output],
                        time_width,
                        norm_options(config),
                        device,
                    )
                })
                .collect(),
            attentions: (0..if attends { num_layers } else { 0 })
                .map(|_| transformer(config, level, device))
                .collect(),
            upsamplers: (0..usize::from(level > 0))
                .map(|_| Upsample2D::new(output, device))
                .collect(),
        }
    }

    /// The level's output; takes its skips from the end of `skips` and enlarges to the size of the next one, which
    /// is exactly double unless the way down met an odd size.
    pub fn forward(
        &self,
        mut hidden: Tensor<B, 4>,
        time: &Tensor<B, 2>,
        context: &Tensor<B, 3>,
        skips: &mut Vec<Tensor<B, 4>>,
    ) -> Tensor<B, 4> {
        for (layer, resnet) in self.resnets.iter().enumerate() {
            let skip = skips
                .pop()
                .expect("the way down left a state per residual block");
            hidden = resnet.forward(Tensor::cat(vec![hidden, skip], 1), Some(time.clone()));
            if let Some(attention) = self.attentions.get(layer) {
                hidden = attention.forward(hidden, context.clone());
            }
        }
        let size = skips.last().map(|skip| {
            let [_, _, height, width] = skip.dims();
            [height, width]
        });
        for upsampler in &self.upsamplers {
            hidden = upsampler.forward(hidden, size);
        }
        hidden
    }
}
