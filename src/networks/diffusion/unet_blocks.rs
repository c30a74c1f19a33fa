//! The denoising network's levels. Source: diffusers `DownBlock2D`, `CrossAttnDownBlock2D`,
//! `UNetMidBlock2DCrossAttn`, `UNetMidBlock2D`, `UpBlock2D`, `CrossAttnUpBlock2D`; a block without attention is one whose
//! `attentions` are empty.

use burn::module::Module;
use burn::tensor::{Tensor, backend::Backend};

use super::attention::{KeyValue, Transformer2DModel, TransformerOptions};
use super::conditions::Conditions;
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

/// A residual block at the pass's time.
fn timed<B: Backend>(
    resnet: &ResnetBlock2D<B>,
    hidden: Tensor<B, 4>,
    conditions: &mut Conditions<'_, B>,
) -> Tensor<B, 4> {
    let told = resnet.time_emb_proj.is_some();
    resnet.forward(hidden, told.then(|| conditions.next_shift()))
}

/// Residual and transformer blocks of a level, for what they need to know before the first step.
pub(super) trait Level<B: Backend> {
    fn resnets(&self) -> &[ResnetBlock2D<B>];
    fn attentions(&self) -> &[Transformer2DModel<B>];

    /// Appends the level's part of a prompt's states.
    fn read(&self, states: &Tensor<B, 3>, prompt: &mut Vec<KeyValue<B>>) {
        for attention in self.attentions() {
            attention.read(states, prompt);
        }
    }

    /// Appends the level's part of the time steps' states.
    fn tell(&self, time: &Tensor<B, 2>, shifts: &mut Vec<Tensor<B, 2>>) {
        shifts.extend(
            self.resnets()
                .iter()
                .filter_map(|resnet| resnet.shift(time)),
        );
    }
}

macro_rules! level {
    ($name:ident) => {
        impl<B: Backend> Level<B> for $name<B> {
            fn resnets(&self) -> &[ResnetBlock2D<B>] {
                &self.resnets
            }

            fn attentions(&self) -> &[Transformer2DModel<B>] {
                &self.attentions
            }
        }
    };
}
level!(DownBlock);
level!(MidBlock);
level!(UpBlock);

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
    pub(super) fn forward(
        &self,
        mut hidden: Tensor<B, 4>,
        conditions: &mut Conditions<'_, B>,
        skips: &mut Vec<Tensor<B, 4>>,
    ) -> Tensor<B, 4> {
        for (layer, resnet) in self.resnets.iter().enumerate() {
            hidden = timed(resnet, hidden, conditions);
            if let Some(attention) = self.attentions.get(layer) {
                hidden = attention.forward(hidden, conditions);
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
    pub(super) fn forward(
        &self,
        hidden: Tensor<B, 4>,
        conditions: &mut Conditions<'_, B>,
    ) -> Tensor<B, 4> {
        let mut hidden = timed(&self.resnets[0], hidden, conditions);
        for (attention, resnet) in self.attentions.iter().zip(&self.resnets[1..]) {
            hidden = attention.forward(hidden, conditions);
            hidden = timed(resnet, hidden, conditions);
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
    pub(super) fn forward(
        &self,
        mut hidden: Tensor<B, 4>,
        conditions: &mut Conditions<'_, B>,
        skips: &mut Vec<Tensor<B, 4>>,
    ) -> Tensor<B, 4> {
        for (layer, resnet) in self.resnets.iter().enumerate() {
            let skip = skips
                .pop()
                .expect("the way down left a state per residual block");
            hidden = timed(resnet, Tensor::cat(vec![hidden, skip], 1), conditions);
            if let Some(attention) = self.attentions.get(layer) {
                hidden = attention.forward(hidden, conditions);
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
