//! A Stable Diffusion pipeline from a hub folder, and its parts back into one: `model_index.json`, `unet/`, `vae/`,
//! `scheduler/`, `text_encoder/`, `tokenizer/`.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData};
use model_import::{SaveDtype, load_into, maps, save_from};
use serde::Serialize;
use serde_json::{Value, json};

use super::clip::open_text_model;
use super::folder::{FolderError, HubFolder, write_json};
use crate::networks::clip::{ClipTextConfig, ClipTextModel};
use crate::networks::diffusion::{AutoencoderKl, UNet2DConditionModel, UNetConfig, VaeConfig};
use crate::networks::scheduler::{NoiseSchedule, SchedulerClass, SchedulerConfig};
use crate::text::TextTokenizer;

const WEIGHTS: &str = "diffusion_pytorch_model.safetensors";

/// The frozen text encoder of a pipeline.
#[derive(Debug, Clone)]
pub struct PromptEncoder<B: Backend> {
    /// The text tower's configuration.
    pub config: ClipTextConfig,
    /// The text tower.
    pub network: ClipTextModel<B>,
    /// Its tokeniser.
    pub tokenizer: TextTokenizer,
}

impl<B: Backend> PromptEncoder<B> {
    /// Opens a text tower (or a whole CLIP) and the tokeniser in `tokenizer`.
    ///
    /// # Errors
    /// When either folder is broken.
    pub fn open(network: &Path, tokenizer: &Path, device: &B::Device) -> Result<Self, FolderError> {
        let (config, network) = open_text_model(network, device)?;
        Ok(Self {
            config,
            network,
            tokenizer: TextTokenizer::open(tokenizer)?,
        })
    }

    /// Tokens of every prompt: the tower's context length.
    pub fn context_length(&self) -> usize {
        let longest = self.config.max_position_embeddings;
        self.tokenizer
            .max_length()
            .map_or(longest, |length| length.min(longest))
    }

    /// The final states of `prompts`, each cut or filled to the context length: `[batch, tokens, width]`.
    pub fn states(&self, prompts: &[impl AsRef<str>], device: &B::Device) -> Tensor<B, 3> {
        let texts: Vec<&str> = prompts.iter().map(AsRef::as_ref).collect();
        let length = self.context_length();
        let (rows, _) = self.tokenizer.encode_padded(&texts, length);
        let ids: Vec<i32> = rows.into_iter().flatten().map(|id| id as i32).collect();
        let ids =
            Tensor::<B, 2, Int>::from_data(TensorData::new(ids, [texts.len(), length]), device);
        self.network.forward(ids).last_hidden_state
    }
}

/// A pipeline folder, loaded.
#[derive(Debug, Clone)]
pub struct PretrainedDiffusion<B: Backend> {
    pub unet_config: UNetConfig,
    pub unet: UNet2DConditionModel<B>,
    pub vae_config: VaeConfig,
    pub vae: AutoencoderKl<B>,
    pub scheduler: SchedulerConfig,
    pub text_encoder: PromptEncoder<B>,
    /// A digest of the weights and configurations that decide what is drawn.
    pub fingerprint: String,
}

impl<B: Backend> PretrainedDiffusion<B> {
    /// Height and width of the latents the network was trained on, 64 where the file does not say.
    pub fn latent_size(&self) -> usize {
        self.unet_config.sample_size.unwrap_or(64)
    }
}

/// Opens a pipeline folder. Safety checker and feature extractor are not read.
///
/// # Errors
/// When the folder is no Stable Diffusion pipeline, a part is missing, parts do not fit each other, or weights do not
/// fit their configuration.
pub fn open<B: Backend>(
    path: &Path,
    device: &B::Device,
) -> Result<PretrainedDiffusion<B>, FolderError> {
    let index = HubFolder::open_with(path, "model_index.json")?;
    expect_class(&index, "model_index.json", &["StableDiffusionPipeline"])?;
    let (unet_config, unet) = open_unet(&path.join("unet"), device)?;
    let (vae_config, vae) = open_vae(&path.join("vae"), device)?;
    let scheduler = open_scheduler(&path.join("scheduler"))?;
    let text_encoder =
        PromptEncoder::open(&path.join("text_encoder"), &path.join("tokenizer"), device)?;
    let disagree = |part: &str, reason: String| {
        Err(FolderError::Configuration {
            path: path.join(part).join("config.json"),
            reason,
        })
    };
    let width = text_encoder.config.hidden_size;
    if unet_config.cross_attention_dim != width {
        return disagree(
            "unet",
            format!(
                "cross_attention_dim is {}, the text encoder beside it has width {width}",
                unet_config.cross_attention_dim
            ),
        );
    }
    if unet_config.in_channels != vae_config.latent_channels {
        return disagree(
            "unet",
            format!(
                "in_channels is {}, the autoencoder beside it has {} latent channels",
                unet_config.in_channels, vae_config.latent_channels
            ),
        );
    }
    let mut fingerprint = String::new();
    for part in ["unet", "vae", "text_encoder"] {
        fingerprint += &HubFolder::open(&path.join(part))?.fingerprint()?;
    }
    Ok(PretrainedDiffusion {
        unet_config,
        unet,
        vae_config,
        vae,
        scheduler,
        text_encoder,
        fingerprint,
    })
}

/// Opens a `unet` folder.
///
/// # Errors
/// Another class, an option that is not supported, weights that do not fit.
pub fn open_unet<B: Backend>(
    path: &Path,
    device: &B::Device,
) -> Result<(UNetConfig, UNet2DConditionModel<B>), FolderError> {
    let folder = HubFolder::open(path)?;
    expect_class(&folder, "config.json", &["UNet2DConditionModel"])?;
    let config: UNetConfig = folder.parse()?;
    let mut network = config
        .init(device)
        .map_err(|error| unsupported(path, "config.json", &error))?;
    load_into(&mut network, &folder.weights()?, &maps::diffusion::unet())?;
    Ok((config, network))
}

/// Opens a `vae` folder.
///
/// # Errors
/// Another class, an option that is not supported, weights that do not fit.
pub fn open_vae<B: Backend>(
    path: &Path,
    device: &B::Device,
) -> Result<(VaeConfig, AutoencoderKl<B>), FolderError> {
    let folder = HubFolder::open(path)?;
    expect_class(&folder, "config.json", &["AutoencoderKL"])?;
    let config: VaeConfig = folder.parse()?;
    let mut network = config
        .init(device)
        .map_err(|error| unsupported(path, "config.json", &error))?;
    let checkpoint = folder.weights()?;
    let map = maps::diffusion::vae(&checkpoint);
    load_into(&mut network, &checkpoint, &map)?;
    Ok((config, network))
}

/// Opens a `scheduler` folder; its `_class_name` decides how the pipeline samples.
///
/// # Errors
/// Another class, an option that is not supported.
pub fn open_scheduler(path: &Path) -> Result<SchedulerConfig, FolderError> {
    let file = "scheduler_config.json";
    let folder = HubFolder::open_with(path, file)?;
    let class = folder.config().get("_class_name").and_then(Value::as_str);
    if class.and_then(SchedulerClass::named).is_none() {
        let known = SchedulerClass::ALL.map(SchedulerClass::name);
        expect_class(&folder, file, &known)?;
    }
    let config: SchedulerConfig = folder.parse()?;
    NoiseSchedule::new(&config).map_err(|error| unsupported(path, file, &error))?;
    Ok(config)
}

/// Writes a `unet` folder that diffusers loads.
///
/// # Errors
/// When a file cannot be written.
pub fn save_unet<B: Backend>(
    path: &Path,
    config: &UNetConfig,
    network: &UNet2DConditionModel<B>,
    dtype: SaveDtype,
) -> Result<(), FolderError> {
    write_config(path, config)?;
    let map = maps::diffusion::unet();
    save_from(network, &path.join(WEIGHTS), &map, dtype, &BTreeMap::new())?;
    Ok(())
}

/// Writes a `vae` folder that diffusers loads.
///
/// # Errors
/// When a file cannot be written.
pub fn save_vae<B: Backend>(
    path: &Path,
    config: &VaeConfig,
    network: &AutoencoderKl<B>,
    dtype: SaveDtype,
) -> Result<(), FolderError> {
    write_config(path, config)?;
    let map = maps::diffusion::vae_now();
    save_from(network, &path.join(WEIGHTS), &map, dtype, &BTreeMap::new())?;
    Ok(())
}

/// Writes `scheduler/` and `model_index.json` of a pipeline folder; the other parts are saved by their own functions.
///
/// # Errors
/// When a file cannot be written.
pub fn save_index(path: &Path, scheduler: &SchedulerConfig) -> Result<(), FolderError> {
    write_json(
        &path.join("scheduler/scheduler_config.json"),
        &json!(scheduler),
    )?;
    let index = json!({
        "_class_name": "StableDiffusionPipeline",
        "feature_extractor": [null, null],
        "requires_safety_checker": false,
        "safety_checker": [null, null],
        "scheduler": ["diffusers", scheduler.class.name()],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    });
    write_json(&path.join("model_index.json"), &index)
}

fn write_config(path: &Path, config: &impl Serialize) -> Result<(), FolderError> {
    write_json(&path.join("config.json"), &json!(config))
}

fn expect_class(folder: &HubFolder, file: &str, expected: &[&str]) -> Result<(), FolderError> {
    let found = folder.config().get("_class_name").and_then(Value::as_str);
    if found.is_some_and(|name| expected.contains(&name)) {
        return Ok(());
    }
    Err(FolderError::Configuration {
        path: folder.path().join(file),
        reason: format!(
            "_class_name is {}, expected {}",
            found.unwrap_or("missing"),
            expected.join(" or ")
        ),
    })
}

fn unsupported(path: &Path, file: &str, error: &impl std::fmt::Display) -> FolderError {
    FolderError::Configuration {
        path: path.join(file),
        reason: error.to_string(),
    }
}
