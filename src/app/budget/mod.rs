//! How much device memory a training takes, from configurations alone: parameters are counted in the networks as they
//! would be built, activations from what their operations keep.
//!
//! Nothing is loaded and nothing computed. What a backend keeps beside tensors (its context, kernels, pages between
//! tensors) is one line of its own. `tests/memory.rs` holds the language model's part against counted allocations.

mod activations;
mod parameters;

use std::path::Path;

use anyhow::Context as _;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::backend::Devices;
use super::config::RunConfig;
use crate::networks::blip2::Blip2Config;
use crate::networks::clip::{ClipConfig, ClipTextConfig};
use crate::networks::diffusion::{UNetConfig, VaeConfig};
use crate::networks::llama::LlamaConfig;
use crate::pretrained::hub;
use crate::training::preference::MicroBatch;

pub use activations::{LanguageStep, decoding_bytes, denoising_bytes};

/// What a device keeps for itself: the driver's context, compiled kernels, and pages that no tensor fills (ours: a
/// twentieth of all tensors, and a gigabyte).
const RESERVED: u64 = 1 << 30;
const PAGES_PART: u64 = 20;

/// The networks' shapes.
#[derive(Debug, Clone)]
pub struct Shapes {
    /// The language model.
    pub language: LlamaConfig,
    /// CLIP.
    pub clip: ClipConfig,
    /// The captioner.
    pub captioner: Blip2Config,
    /// The generator's denoising network.
    pub unet: UNetConfig,
    /// The generator's autoencoder.
    pub vae: VaeConfig,
    /// The generator's text encoder.
    pub text: ClipTextConfig,
}

impl Shapes {
    /// Reads the `config.json` files of `[models]`; weights need not be there.
    ///
    /// # Errors
    /// A file that is missing or not understood, by its name.
    pub fn read(config: &RunConfig) -> anyhow::Result<Self> {
        let models = &config.models;
        let generator = hub::located(&models.generator);
        Ok(Self {
            language: read(&hub::located(&models.language_model))?,
            clip: read(&hub::located(&models.clip))?,
            captioner: read(&hub::located(&models.captioner))?,
            unet: read(&generator.join("unet"))?,
            vae: read(&generator.join("vae"))?,
            text: read(&generator.join("text_encoder"))?,
        })
    }
}

fn read<T: DeserializeOwned>(folder: &Path) -> anyhow::Result<T> {
    let path = folder.join("config.json");
    let bytes = std::fs::read(&path).with_context(|| {
        format!(
            "{} cannot be read: a budget needs the configuration of every network of [models], not its weights",
            path.display()
        )
    })?;
    serde_json::from_slice(&bytes).with_context(|| format!("{}: not understood", path.display()))
}

/// One line of a budget.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    /// What takes the memory.
    pub what: String,
    /// Numbers in it; 0 where they are not counted.
    pub numbers: u64,
    /// Their type.
    pub dtype: String,
    /// Bytes.
    pub bytes: u64,
}

/// The memory of a training, part by part.
#[derive(Debug, Clone, Serialize)]
pub struct Budget {
    /// Weights of the networks, there all the time.
    pub weights: Vec<Line>,
    /// What trains, its gradients and moments, there all the time.
    pub training: Vec<Line>,
    /// Needed while learning: kept for the backward pass, and one layer's way back.
    pub step: Vec<Line>,
    /// Needed while images are drawn, one after the other. No graph is there then.
    pub transient: Vec<Line>,
    /// The captioner, which is gone before training begins.
    pub preparation: Vec<Line>,
    /// What the device keeps for itself while training.
    pub reserved: u64,
    /// All while training: weights, what trains, the greater of learning and drawing, reserved.
    pub total: u64,
    /// The same with `training.segment_layers = 1`: each layer is computed again in the backward pass.
    pub total_with_segments: u64,
    /// All while captions and keywords are prepared.
    pub total_of_preparation: u64,
}

impl Budget {
    /// The budget of `config`; `device` is only named, nothing is put there.
    ///
    /// # Errors
    /// A configuration whose sizes make no network.
    pub fn of(config: &RunConfig, shapes: &Shapes, devices: &Devices) -> anyhow::Result<Self> {
        let dtype = config.models.dtype;
        let frozen = |what: &str, numbers: u64| Line {
            what: what.into(),
            numbers,
            dtype: dtype.word().into(),
            bytes: numbers * dtype.bytes(),
        };
        let counts = parameters::frozen(shapes, &devices.frozen)?;
        let weights = vec![
            frozen("language model", counts.language),
            frozen("CLIP", counts.clip),
            frozen("denoising network", counts.unet),
            frozen("autoencoder", counts.vae),
            frozen("text encoder", counts.text),
        ];
        let preparation = vec![frozen("captioner", counts.captioner)];

        let plain = |what: &str, numbers: u64| Line {
            what: what.into(),
            numbers,
            dtype: "f32".into(),
            bytes: numbers * 4,
        };
        let trained = parameters::trained(config, shapes, &devices.frozen)?;
        let all: u64 = trained.iter().map(|(_, count)| count).sum();
        let mut training: Vec<Line> = trained
            .iter()
            .map(|(what, count)| plain(what, *count))
            .collect();
        training.push(plain("gradients", all));
        training.push(plain("first and second moments", 2 * all));

        let language = LanguageStep {
            shape: &shapes.language,
            lora: &config.preference.lora,
            bytes: dtype.bytes(),
            batch: match config.training.micro_batch {
                MicroBatch::Users(users) => users.min(config.training.batch_size) as u64,
                MicroBatch::Rule(_) => config.training.batch_size as u64,
            },
            tokens: (config.preference.max_prompt_tokens + config.preference.image_tokens) as u64,
        };
        let bytes = |what: &str, bytes: u64| Line {
            what: what.into(),
            numbers: 0,
            dtype: String::new(),
            bytes,
        };
        let segment_layers = config.training.segment_layers as u64;
        let queries = shapes.text.max_position_embeddings as u64;
        let mapper = activations::mapper_bytes(&config.preference.mapper, queries, language.batch);
        let step = vec![
            bytes(
                "language model's layers",
                language.kept_by_segments(segment_layers),
            ),
            bytes("mapper and fusion", mapper),
            bytes("backward through one layer", language.layer_backward()),
        ];
        let images = config.reflection.images_per_batch as u64;
        let guided = config.reflection.guidance_scale != 1.0;
        let rows = images * if guided { 2 } else { 1 };
        let transient = vec![
            bytes(
                &format!("denoising {rows} rows ({images} images)"),
                denoising_bytes(&shapes.unet, rows, dtype.bytes()),
            ),
            bytes(
                "decoding images",
                decoding_bytes(&shapes.vae, &shapes.unet, images, dtype.bytes()),
            ),
        ];

        let sum = |lines: &[Line]| lines.iter().map(|line| line.bytes).sum::<u64>();
        let largest = transient.iter().map(|line| line.bytes).max().unwrap_or(0);
        let constant = sum(&weights) + sum(&training);
        let with_reserved = |bytes: u64| bytes + bytes / PAGES_PART + RESERVED;
        let whole = constant + sum(&step).max(largest);
        let learning = language.kept_by_segments(1) + mapper + language.layer_backward();
        let segments = constant + learning.max(largest);
        let prepared = sum(&weights)
            + sum(&preparation)
            + language.cache(config.keywords.batch_size as u64, 512);
        Ok(Self {
            reserved: with_reserved(whole) - whole,
            total: with_reserved(whole),
            total_with_segments: with_reserved(segments),
            total_of_preparation: with_reserved(prepared),
            weights,
            training,
            step,
            transient,
            preparation,
        })
    }
}
