//! The autoencoder between pixels and latents. Source: diffusers `AutoencoderKL`.

use burn::module::Module;
use burn::nn::conv::Conv2d;
use burn::nn::{Dropout, DropoutConfig, GroupNorm, Linear, LinearConfig};
use burn::tensor::{Tensor, backend::Backend};

use super::config::DiffusionConfigError;
use super::resnet::{
    Downsample2D, NormOptions, ResnetBlock2D, Upsample2D, convolution, group_norm,
};
use super::vae_config::VaeConfig;
use crate::nn::attention::scaled_dot_product;
use crate::nn::convolution::{as_map, as_tokens, convolve};
use crate::nn::host::over_rows;
use crate::nn::norm::{group_norm as normalised, group_norm_silu};

/// The autoencoder's norms all add this to the variance.
const EPSILON: f64 = 1e-6;

/// Single-head self-attention over the cells of a feature map.
#[derive(Module, Debug)]
pub struct SpatialAttention<B: Backend> {
    pub group_norm: GroupNorm<B>,
    pub to_q: Linear<B>,
    pub to_k: Linear<B>,
    pub to_v: Linear<B>,
    pub to_out: (Linear<B>, Dropout),
}

impl<B: Backend> SpatialAttention<B> {
    fn new(width: usize, groups: usize, device: &B::Device) -> Self {
        let linear = || LinearConfig::new(width, width).init(device);
        Self {
            group_norm: group_norm(groups, width, EPSILON, device),
            to_q: linear(),
            to_k: linear(),
            to_v: linear(),
            to_out: (linear(), DropoutConfig::new(0.0).init()),
        }
    }

    fn forward(&self, input: Tensor<B, 4>) -> Tensor<B, 4> {
        let [_, _, height, width] = input.dims();
        let tokens = as_tokens(normalised(&self.group_norm, input.clone()));
        let one_head = |tokens: Tensor<B, 3>| tokens.unsqueeze_dim::<4>(1);
        let attended = scaled_dot_product(
            one_head(self.to_q.forward(tokens.clone())),
            one_head(self.to_k.forward(tokens.clone())),
            one_head(self.to_v.forward(tokens)),
            None,
        );
        let output = self.to_out.0.forward(attended.squeeze_dim::<3>(1));
        as_map(output, [height, width]) + input
    }
}

/// The lowest resolution: residual, attention (unless switched off), residual.
#[derive(Module, Debug)]
pub struct VaeMidBlock<B: Backend> {
    pub resnets: Vec<ResnetBlock2D<B>>,
    pub attentions: Vec<SpatialAttention<B>>,
}

impl<B: Backend> VaeMidBlock<B> {
    fn new(config: &VaeConfig, device: &B::Device) -> Self {
        let width = last(&config.block_out_channels);
        let resnet = || ResnetBlock2D::new([width, width], None, norm(config), device);
        Self {
            resnets: vec![resnet(), resnet()],
            attentions: (0..usize::from(config.mid_block_add_attention))
                .map(|_| SpatialAttention::new(width, config.norm_num_groups, device))
                .collect(),
        }
    }

    fn forward(&self, hidden: Tensor<B, 4>) -> Tensor<B, 4> {
        let mut hidden = self.resnets[0].forward(hidden, None);
        for attention in &self.attentions {
            hidden = attention.forward(hidden);
        }
        self.resnets[1].forward(hidden, None)
    }
}

/// One level of the encoder.
#[derive(Module, Debug)]
pub struct DownEncoderBlock<B: Backend> {
    pub resnets: Vec<ResnetBlock2D<B>>,
    pub downsamplers: Vec<Downsample2D<B>>,
}

/// Pixels to the parameters of the latents' distribution.
#[derive(Module, Debug)]
pub struct Encoder<B: Backend> {
    pub conv_in: Conv2d<B>,
    pub down_blocks: Vec<DownEncoderBlock<B>>,
    pub mid_block: VaeMidBlock<B>,
    pub conv_norm_out: GroupNorm<B>,
    pub conv_out: Conv2d<B>,
}

impl<B: Backend> Encoder<B> {
    fn new(config: &VaeConfig, device: &B::Device) -> Self {
        let widths = &config.block_out_channels;
        let levels = widths.len();
        let block = |level: usize| DownEncoderBlock {
            resnets: (0..config.layers_per_block)
                .map(|layer| {
                    let from = if layer == 0 {
                        level.saturating_sub(1)
                    } else {
                        level
                    };
                    ResnetBlock2D::new([widths[from], widths[level]], None, norm(config), device)
                })
                .collect(),
            downsamplers: (0..usize::from(level + 1 < levels))
                .map(|_| Downsample2D::new(widths[level], 0, device))
                .collect(),
        };
        Self {
            conv_in: convolution([config.in_channels, widths[0]], 3, device),
            down_blocks: (0..levels).map(block).collect(),
            mid_block: VaeMidBlock::new(config, device),
            conv_norm_out: group_norm(config.norm_num_groups, last(widths), EPSILON, device),
            conv_out: convolution([last(widths), 2 * config.latent_channels], 3, device),
        }
    }

    fn forward(&self, image: Tensor<B, 4>) -> Tensor<B, 4> {
        let mut hidden = convolve(&self.conv_in, image);
        for block in &self.down_blocks {
            for resnet in &block.resnets {
                hidden = resnet.forward(hidden, None);
            }
            for downsampler in &block.downsamplers {
                hidden = downsampler.forward(hidden);
            }
        }
        let hidden = self.mid_block.forward(hidden);
        convolve(&self.conv_out, group_norm_silu(&self.conv_norm_out, hidden))
    }
}

/// One level of the decoder.
#[derive(Module, Debug)]
pub struct UpDecoderBlock<B: Backend> {
    pub resnets: Vec<ResnetBlock2D<B>>,
    pub upsamplers: Vec<Upsample2D<B>>,
}

/// Latents to pixels.
#[derive(Module, Debug)]
pub struct Decoder<B: Backend> {
    pub conv_in: Conv2d<B>,
    pub mid_block: VaeMidBlock<B>,
    pub up_blocks: Vec<UpDecoderBlock<B>>,
    pub conv_norm_out: GroupNorm<B>,
    pub conv_out: Conv2d<B>,
}

impl<B: Backend> Decoder<B> {
    fn new(config: &VaeConfig, device: &B::Device) -> Self {
        let widths = &config.block_out_channels;
        let levels = widths.len();
        let block = |index: usize| {
            let level = levels - 1 - index;
            let below = (level + 1).min(levels - 1);
            UpDecoderBlock {
                resnets: (0..=config.layers_per_block)
                    .map(|layer| {
                        let from = if layer == 0 { below } else { level };
                        let channels = [widths[from], widths[level]];
                        ResnetBlock2D::new(channels, None, norm(config), device)
                    })
                    .collect(),
                upsamplers: (0..usize::from(level > 0))
                    .map(|_| Upsample2D::new(widths[level], device))
                    .collect(),
            }
        };
        Self {
            conv_in: convolution([config.latent_channels, last(widths)], 3, device),
            mid_block: VaeMidBlock::new(config, device),
            up_blocks: (0..levels).map(block).collect(),
            conv_norm_out: group_norm(config.norm_num_groups, widths[0], EPSILON, device),
            conv_out: convolution([widths[0], config.out_channels], 3, device),
        }
    }

    fn forward(&self, latent: Tensor<B, 4>) -> Tensor<B, 4> {
        let mut hidden = self.mid_block.forward(convolve(&self.conv_in, latent));
        for block in &self.up_blocks {
            for resnet in &block.resnets {
                hidden = resnet.forward(hidden, None);
            }
            for upsampler in &block.upsamplers {
                hidden = upsampler.forward(hidden, None);
            }
        }
        convolve(&self.conv_out, group_norm_silu(&self.conv_norm_out, hidden))
    }
}

/// A diagonal normal distribution over unscaled latents, both parameters `[batch, latent channels, height, width]`.
#[derive(Debug, Clone)]
pub struct LatentDistribution<B: Backend> {
    pub mean: Tensor<B, 4>,
    /// Natural logarithm of the variance, within [−30, 20].
    pub logvar: Tensor<B, 4>,
}

impl<B: Backend> LatentDistribution<B> {
    /// The latents that standard normal `noise` selects.
    pub fn sample(&self, noise: Tensor<B, 4>) -> Tensor<B, 4> {
        self.mean.clone() + self.logvar.clone().mul_scalar(0.5).exp() * noise
    }

    /// Kullback–Leibler divergence from the standard normal, summed over an image's latents, mean over the batch.
    pub fn divergence(&self) -> Tensor<B, 1> {
        let [batch, ..] = self.mean.dims();
        let terms = self.mean.clone().powi_scalar(2) + self.logvar.clone().exp()
            - self.logvar.clone().add_scalar(1.0);
        terms.sum().mul_scalar(0.5 / batch as f64)
    }
}

/// Encoder and decoder with the 1×1 convolutions round the latents.
#[derive(Module, Debug)]
pub struct AutoencoderKl<B: Backend> {
    pub encoder: Encoder<B>,
    pub decoder: Decoder<B>,
    pub quant_conv: Option<Conv2d<B>>,
    pub post_quant_conv: Option<Conv2d<B>>,
    pub scaling_factor: f64,
    pub shift_factor: f64,
}

impl VaeConfig {
    /// An autoencoder with fresh weights.
    ///
    /// # Errors
    /// When the configuration asks for what this implementation does not have.
    pub fn init<B: Backend>(
        &self,
        device: &B::Device,
    ) -> Result<AutoencoderKl<B>, DiffusionConfigError> {
        self.validate()?;
        let latents = self.latent_channels;
        let quant = || convolution([2 * latents, 2 * latents], 1, device);
        let post_quant = || convolution([latents, latents], 1, device);
        Ok(AutoencoderKl {
            encoder: Encoder::new(self, device),
            decoder: Decoder::new(self, device),
            quant_conv: self.use_quant_conv.then(quant),
            post_quant_conv: self.use_post_quant_conv.then(post_quant),
            scaling_factor: self.scaling_factor,
            shift_factor: self.shift_factor.unwrap_or(0.0),
        })
    }
}

impl<B: Backend> AutoencoderKl<B> {
    /// Images `[batch, 3, height, width]` in [−1, 1] → the distribution of their unscaled latents.
    pub fn encode(&self, image: Tensor<B, 4>) -> LatentDistribution<B> {
        let hidden = self.encoder.forward(image);
        let parameters = match &self.quant_conv {
            Some(convolution) => convolve(convolution, hidden),
            None => hidden,
        };
        let mut halves = parameters.chunk(2, 1);
        let logvar = halves.remove(1).clamp(-30.0, 20.0);
        LatentDistribution {
            mean: halves.remove(0),
            logvar,
        }
    }

    /// Unscaled latents → images `[batch, 3, height, width]` in about [−1, 1] (not clamped).
    pub fn decode(&self, latent: Tensor<B, 4>) -> Tensor<B, 4> {
        let latent = match &self.post_quant_conv {
            Some(convolution) => convolve(convolution, latent),
            None => latent,
        };
        let ([rows, ..], device) = (latent.dims(), latent.device());
        over_rows(rows, &device, |rows| {
            let latent = latent.clone().narrow(0, rows.start, rows.len());
            self.decoder.forward(latent)
        })
    }

    /// Unscaled latents as the denoising network wants them, near unit variance.
    pub fn scale(&self, latent: Tensor<B, 4>) -> Tensor<B, 4> {
        latent
            .sub_scalar(self.shift_factor)
            .mul_scalar(self.scaling_factor)
    }

    /// The inverse of [`scale`](Self::scale).
    pub fn unscale(&self, latent: Tensor<B, 4>) -> Tensor<B, 4> {
        latent
            .div_scalar(self.scaling_factor)
            .add_scalar(self.shift_factor)
    }
}

fn norm(config: &VaeConfig) -> NormOptions {
    NormOptions {
        groups: config.norm_num_groups,
        epsilon: EPSILON,
    }
}

fn last(widths: &[usize]) -> usize {
    widths[widths.len() - 1]
}
