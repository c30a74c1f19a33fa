//! The autoencoder's `config.json`, as diffusers writes it.

use serde::{Deserialize, Serialize};

use super::config::{DiffusionConfigError, divides, four, one, refuse, silu, thirty_two, yes};
use crate::nn::activation::Activation;

/// `AutoencoderKL`'s configuration; defaults are diffusers'.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VaeConfig {
    #[serde(rename = "_class_name", default = "vae_class")]
    pub class_name: String,
    #[serde(default)]
    pub sample_size: Option<usize>,
    #[serde(default = "colours")]
    pub in_channels: usize,
    #[serde(default = "colours")]
    pub out_channels: usize,
    #[serde(default = "four")]
    pub latent_channels: usize,
    pub down_block_types: Vec<String>,
    pub up_block_types: Vec<String>,
    pub block_out_channels: Vec<usize>,
    #[serde(default = "one")]
    pub layers_per_block: usize,
    #[serde(default = "silu")]
    pub act_fn: Activation,
    #[serde(default = "thirty_two")]
    pub norm_num_groups: usize,
    /// Latents are multiplied by this before the denoising network sees them. The first SD files do not name it.
    #[serde(default = "scaling_factor")]
    pub scaling_factor: f64,
    /// Subtracted from the latents before scaling.
    #[serde(default)]
    pub shift_factor: Option<f64>,
    #[serde(default = "yes")]
    pub mid_block_add_attention: bool,
    #[serde(default = "yes")]
    pub use_quant_conv: bool,
    #[serde(default = "yes")]
    pub use_post_quant_conv: bool,
    #[serde(default)]
    pub latents_mean: Option<Vec<f64>>,
    #[serde(default)]
    pub latents_std: Option<Vec<f64>>,
}

impl VaeConfig {
    /// Pixels per latent cell, along each axis.
    pub fn downsampling(&self) -> usize {
        1 << (self.block_out_channels.len() - 1)
    }

    /// Refuses what cannot be built as the file says.
    ///
    /// # Errors
    /// Names the first key that is not supported or does not fit.
    pub fn validate(&self) -> Result<(), DiffusionConfigError> {
        let levels = self.block_out_channels.len();
        refuse(
            levels > 0,
            "block_out_channels",
            &self.block_out_channels,
            "a list with an entry per level",
        )?;
        for (key, types, only, what) in [
            (
                "down_block_types",
                &self.down_block_types,
                "DownEncoderBlock2D",
                "DownEncoderBlock2D",
            ),
            (
                "up_block_types",
                &self.up_block_types,
                "UpDecoderBlock2D",
                "UpDecoderBlock2D",
            ),
        ] {
            if types.len() != levels {
                return Err(DiffusionConfigError::Levels {
                    key,
                    expected: levels,
                    found: types.len(),
                });
            }
            refuse(types.iter().all(|block| block == only), key, types, what)?;
        }
        for &channels in &self.block_out_channels {
            divides("norm_num_groups", channels, self.norm_num_groups)?;
        }
        refuse(
            self.act_fn == Activation::Silu,
            "act_fn",
            self.act_fn,
            "silu",
        )?;
        refuse(
            self.scaling_factor > 0.0,
            "scaling_factor",
            self.scaling_factor,
            "a positive number",
        )?;
        refuse(
            self.latents_mean.is_none(),
            "latents_mean",
            &self.latents_mean,
            "null",
        )?;
        refuse(
            self.latents_std.is_none(),
            "latents_std",
            &self.latents_std,
            "null",
        )
    }
}

fn vae_class() -> String {
    "AutoencoderKL".into()
}
fn colours() -> usize {
    3
}
fn scaling_factor() -> f64 {
    0.18215
}
