//! The networks' `config.json`, as diffusers writes it. Unknown keys are allowed (the hub adds new ones), options
//! that would change the arithmetic and are not supported are refused by `validate`.

use serde::{Deserialize, Serialize};

use crate::nn::activation::Activation;

/// One number for all levels, or one per level.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PerLevel {
    /// The same everywhere.
    All(usize),
    /// From the highest resolution down.
    Each(Vec<usize>),
}

impl PerLevel {
    /// The number of `level`, counted from the highest resolution.
    ///
    /// # Panics
    /// When a list is shorter than the levels; `validate` refuses such a configuration.
    pub fn at(&self, level: usize) -> usize {
        match self {
            Self::All(value) => *value,
            Self::Each(values) => values[level],
        }
    }

    fn fits(&self, levels: usize) -> bool {
        match self {
            Self::All(_) => true,
            Self::Each(values) => values.len() == levels,
        }
    }
}

/// A configuration that is valid JSON and cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DiffusionConfigError {
    /// An option whose value changes the arithmetic in a way this implementation does not know.
    #[error("`{key}` is {found}: only {supported} is supported")]
    Unsupported {
        key: &'static str,
        found: String,
        supported: &'static str,
    },
    /// Lists that should have one entry per level.
    #[error("`{key}` has {found} entries, `block_out_channels` has {expected}")]
    Levels {
        key: &'static str,
        expected: usize,
        found: usize,
    },
    /// Channels that cannot be divided.
    #[error("{channels} channels cannot be divided into `{key}` = {parts} equal parts")]
    Divide {
        key: &'static str,
        channels: usize,
        parts: usize,
    },
}

pub(crate) fn refuse(
    holds: bool,
    key: &'static str,
    found: impl std::fmt::Debug,
    supported: &'static str,
) -> Result<(), DiffusionConfigError> {
    if holds {
        Ok(())
    } else {
        Err(DiffusionConfigError::Unsupported {
            key,
            found: format!("{found:?}"),
            supported,
        })
    }
}

pub(super) fn divides(
    key: &'static str,
    channels: usize,
    parts: usize,
) -> Result<(), DiffusionConfigError> {
    if parts > 0 && channels.is_multiple_of(parts) {
        Ok(())
    } else {
        Err(DiffusionConfigError::Divide {
            key,
            channels,
            parts,
        })
    }
}

/// `UNet2DConditionModel`'s configuration; defaults are diffusers'.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UNetConfig {
    #[serde(rename = "_class_name", default = "unet_class")]
    pub class_name: String,
    /// Height and width of the latents it was trained on; any other size works too.
    #[serde(default)]
    pub sample_size: Option<usize>,
    #[serde(default = "four")]
    pub in_channels: usize,
    #[serde(default = "four")]
    pub out_channels: usize,
    #[serde(default)]
    pub center_input_sample: bool,
    #[serde(default = "yes")]
    pub flip_sin_to_cos: bool,
    #[serde(default)]
    pub freq_shift: f64,
    pub down_block_types: Vec<String>,
    #[serde(default = "mid_block")]
    pub mid_block_type: Option<String>,
    pub up_block_types: Vec<String>,
    pub block_out_channels: Vec<usize>,
    #[serde(default = "two")]
    pub layers_per_block: PerLevel,
    #[serde(default = "one")]
    pub downsample_padding: usize,
    #[serde(default = "unit")]
    pub mid_block_scale_factor: f64,
    #[serde(default = "silu")]
    pub act_fn: Activation,
    #[serde(default = "thirty_two")]
    pub norm_num_groups: usize,
    #[serde(default = "norm_eps")]
    pub norm_eps: f64,
    #[serde(default = "cross_attention_dim")]
    pub cross_attention_dim: usize,
    #[serde(default = "one_each")]
    pub transformer_layers_per_block: PerLevel,
    /// In this architecture the NUMBER of heads, whatever the name says (diffusers keeps the name for its files).
    #[serde(default = "eight")]
    pub attention_head_dim: PerLevel,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub num_attention_heads: Option<PerLevel>,
    #[serde(default)]
    pub use_linear_projection: bool,
    #[serde(default)]
    pub only_cross_attention: serde_json::Value,
    #[serde(default)]
    pub dual_cross_attention: bool,
    #[serde(default)]
    pub class_embed_type: Option<String>,
    #[serde(default)]
    pub addition_embed_type: Option<String>,
    #[serde(default)]
    pub encoder_hid_dim: Option<usize>,
    #[serde(default = "default_shift")]
    pub resnet_time_scale_shift: String,
    #[serde(default = "positional")]
    pub time_embedding_type: String,
    #[serde(default = "three")]
    pub conv_in_kernel: usize,
    #[serde(default = "three")]
    pub conv_out_kernel: usize,
    /// The file's other keys, kept as they are; `validate` knows those that would change the arithmetic.
    #[serde(flatten)]
    pub further: serde_json::Map<String, serde_json::Value>,
}

/// Further keys, and the value besides null with which they change nothing.
const NEUTRAL: [(&str, &str); 13] = [
    ("attention_type", "\"default\""),
    ("class_embeddings_concat", "false"),
    ("cross_attention_norm", "null"),
    ("encoder_hid_dim_type", "null"),
    ("mid_block_only_cross_attention", "false"),
    ("num_class_embeds", "null"),
    ("resnet_out_scale_factor", "1"),
    ("resnet_skip_time_act", "false"),
    ("reverse_transformer_layers_per_block", "null"),
    ("time_cond_proj_dim", "null"),
    ("time_embedding_act_fn", "null"),
    ("time_embedding_dim", "null"),
    ("timestep_post_act", "null"),
];

impl UNetConfig {
    /// Heads at `level`, counted from the highest resolution.
    pub fn num_heads(&self, level: usize) -> usize {
        self.num_attention_heads
            .as_ref()
            .unwrap_or(&self.attention_head_dim)
            .at(level)
    }

    /// Width of the time embedding.
    pub fn time_embedding_width(&self) -> usize {
        self.block_out_channels[0] * 4
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
        for (key, types) in [
            ("down_block_types", &self.down_block_types),
            ("up_block_types", &self.up_block_types),
        ] {
            if types.len() != levels {
                return Err(DiffusionConfigError::Levels {
                    key,
                    expected: levels,
                    found: types.len(),
                });
            }
        }
        for block in &self.down_block_types {
            let known = matches!(block.as_str(), "DownBlock2D" | "CrossAttnDownBlock2D");
            refuse(
                known,
                "down_block_types",
                block,
                "DownBlock2D or CrossAttnDownBlock2D",
            )?;
        }
        for block in &self.up_block_types {
            let known = matches!(block.as_str(), "UpBlock2D" | "CrossAttnUpBlock2D");
            refuse(
                known,
                "up_block_types",
                block,
                "UpBlock2D or CrossAttnUpBlock2D",
            )?;
        }
        let mid = matches!(
            self.mid_block_type.as_deref(),
            None | Some("UNetMidBlock2DCrossAttn" | "UNetMidBlock2D")
        );
        refuse(
            mid,
            "mid_block_type",
            &self.mid_block_type,
            "UNetMidBlock2DCrossAttn, UNetMidBlock2D or null",
        )?;
        for (key, neutral) in NEUTRAL {
            let found = self.further.get(key).unwrap_or(&serde_json::Value::Null);
            let written = found.to_string();
            let same = found.is_null()
                || written == neutral
                || found.as_f64().is_some_and(|v| neutral.parse() == Ok(v));
            refuse(same, key, found, neutral)?;
        }
        for (key, value) in [
            ("layers_per_block", &self.layers_per_block),
            (
                "transformer_layers_per_block",
                &self.transformer_layers_per_block,
            ),
            (
                "attention_head_dim",
                self.num_attention_heads
                    .as_ref()
                    .unwrap_or(&self.attention_head_dim),
            ),
        ] {
            refuse(
                value.fits(levels),
                key,
                value,
                "one number, or one per level",
            )?;
        }
        for (level, &channels) in self.block_out_channels.iter().enumerate() {
            divides("norm_num_groups", channels, self.norm_num_groups)?;
            divides("attention_head_dim", channels, self.num_heads(level))?;
        }
        refuse(
            !self.center_input_sample,
            "center_input_sample",
            true,
            "false",
        )?;
        refuse(
            self.mid_block_scale_factor == 1.0,
            "mid_block_scale_factor",
            self.mid_block_scale_factor,
            "1",
        )?;
        refuse(
            self.act_fn == Activation::Silu,
            "act_fn",
            self.act_fn,
            "silu",
        )?;
        let only_cross = matches!(
            &self.only_cross_attention,
            serde_json::Value::Null | serde_json::Value::Bool(false)
        ) || self
            .only_cross_attention
            .as_array()
            .is_some_and(|each| each.iter().all(|v| v == false));
        refuse(
            only_cross,
            "only_cross_attention",
            &self.only_cross_attention,
            "false",
        )?;
        refuse(
            !self.dual_cross_attention,
            "dual_cross_attention",
            true,
            "false",
        )?;
        refuse(
            self.class_embed_type.is_none(),
            "class_embed_type",
            &self.class_embed_type,
            "null",
        )?;
        refuse(
            self.addition_embed_type.is_none(),
            "addition_embed_type",
            &self.addition_embed_type,
            "null",
        )?;
        refuse(
            self.encoder_hid_dim.is_none(),
            "encoder_hid_dim",
            self.encoder_hid_dim,
            "null",
        )?;
        refuse(
            self.resnet_time_scale_shift == "default",
            "resnet_time_scale_shift",
            &self.resnet_time_scale_shift,
            "\"default\"",
        )?;
        refuse(
            self.time_embedding_type == "positional",
            "time_embedding_type",
            &self.time_embedding_type,
            "\"positional\"",
        )?;
        refuse(
            self.conv_in_kernel % 2 == 1 && self.conv_out_kernel % 2 == 1,
            "conv_in_kernel",
            self.conv_in_kernel,
            "an odd size",
        )
    }
}

fn unet_class() -> String {
    "UNet2DConditionModel".into()
}
fn mid_block() -> Option<String> {
    Some("UNetMidBlock2DCrossAttn".into())
}
fn default_shift() -> String {
    "default".into()
}
fn positional() -> String {
    "positional".into()
}
pub(super) fn silu() -> Activation {
    Activation::Silu
}
pub(super) fn yes() -> bool {
    true
}
pub(super) fn one() -> usize {
    1
}
fn three() -> usize {
    3
}
pub(super) fn four() -> usize {
    4
}
pub(super) fn thirty_two() -> usize {
    32
}
fn cross_attention_dim() -> usize {
    1280
}
fn one_each() -> PerLevel {
    PerLevel::All(1)
}
fn two() -> PerLevel {
    PerLevel::All(2)
}
fn eight() -> PerLevel {
    PerLevel::All(8)
}
fn unit() -> f64 {
    1.0
}
fn norm_eps() -> f64 {
    1e-5
}
