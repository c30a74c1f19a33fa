//! Sections that no room below owns: folders, and groupings of several rooms' settings.

use std::path::{Path, PathBuf};

use burn::tensor::FloatDType;
use serde::{Deserialize, Serialize};

use crate::data::image::ImageLimits;
use crate::evaluation::interval::BootstrapOptions;
use crate::evaluation::truth::StyleClassifierOptions;
use crate::features::caption::CaptionConfig;
use crate::generation::generator::{GenerateOptions, is_whole, is_zero};
use crate::networks::scheduler::SchedulerChoice;
use crate::pretraining::captioner::CaptionerPretrainingConfig;
use crate::pretraining::clip::ClipPretrainingConfig;
use crate::pretraining::diffusion::DiffusionPretrainingConfig;
use crate::pretraining::language::LanguagePretrainingConfig;
use crate::pretraining::recogniser::RecogniserPretrainingConfig;
use crate::pretraining::vae::VaePretrainingConfig;
use crate::recommender::MicroConfig;
use crate::training::recommender::RecommenderTrainingConfig;

/// `[data]`: what to personalise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataConfig {
    /// A data folder: `items.csv`, `interactions.csv`, `histories.jsonl`, `images/`.
    pub folder: PathBuf,
    /// Length of every history (paper: 20); 0 accepts any.
    pub history_length: usize,
    /// Users of the training split to train on, the first so many; 0 for all.
    pub train_users: usize,
    /// Skip and report bad items in place of stopping at the first.
    pub skip_bad: bool,
    /// How large a picture may be.
    pub image_limits: ImageLimits,
}

impl Default for DataConfig {
    fn default() -> Self {
        Self {
            folder: "assets/stickers".into(),
            history_length: 20,
            train_users: 0,
            skip_bad: false,
            image_limits: ImageLimits::default(),
        }
    }
}

/// A data type of frozen networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkDtype {
    /// Single precision.
    #[default]
    F32,
    /// Half precision: half the memory; nothing beyond 65504.
    F16,
    /// Brain floats: half the memory, the range of f32, fewer digits.
    Bf16,
}

impl NetworkDtype {
    /// The type of the tensors.
    pub fn float(self) -> FloatDType {
        match self {
            Self::F32 => FloatDType::F32,
            Self::F16 => FloatDType::F16,
            Self::Bf16 => FloatDType::BF16,
        }
    }

    /// The word in the configuration.
    pub fn word(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        }
    }

    /// Bytes of a number.
    pub fn bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// `fingerprint` for stores of computed features: half precision computes others, f32 keeps the plain name.
    pub fn mark(self, fingerprint: String) -> String {
        match self {
            Self::F32 => fingerprint,
            other => format!("{fingerprint} {}", other.word()),
        }
    }
}

/// `[models]`: Hugging Face folders.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelsConfig {
    /// CLIP: text and visual encoder of the retrieval and the metrics.
    pub clip: PathBuf,
    /// BLIP-2: captions.
    pub captioner: PathBuf,
    /// Llama: keywords and the preference prompt.
    pub language_model: PathBuf,
    /// Stable Diffusion: `unet`, `vae`, `scheduler`, `tokenizer`, `text_encoder`.
    pub generator: PathBuf,
    /// The ranking model that `ragar rank train` leaves.
    pub ranking: PathBuf,
    /// What the frozen networks are stored and computed in; what trains is f32 in any case. bf16 where the device has it.
    pub dtype: NetworkDtype,
    /// The autoencoder on whose latents `ragar pretrain unet` trains, and through which the recognisers' training pictures go;
    /// nothing else reads it.
    pub vae: PathBuf,
    /// The judge of glyphs, for stickers; empty, or taught others than the data's: CLIP's nearest pictures name them.
    pub glyph_recogniser: PathBuf,
    /// The judge of styles, for stickers; empty, or taught others than the data's: a classifier on CLIP's embeddings names them.
    pub style_recogniser: PathBuf,
}

impl ModelsConfig {
    /// The networks that `ragar generate` needs, each under its key; the ranking model where it chooses among drawings.
    pub fn drawing(&mut self, chooses: bool) -> Vec<(&'static str, &mut PathBuf)> {
        let mut all = vec![
            ("clip", &mut self.clip),
            ("captioner", &mut self.captioner),
            ("language_model", &mut self.language_model),
            ("generator", &mut self.generator),
        ];
        if chooses {
            all.push(("ranking", &mut self.ranking));
        }
        all
    }

    /// Takes the networks named by a relative path that exists beneath `folder` from there.
    pub fn take_from(&mut self, folder: &Path) {
        for (_, path) in self.drawing(true) {
            let inside = folder.join(&*path);
            if path.is_relative() && inside.exists() {
                *path = inside;
            }
        }
    }
}

impl Default for ModelsConfig {
    fn default() -> Self {
        Self {
            clip: "assets/models/tiny/clip".into(),
            captioner: "assets/models/tiny/blip2".into(),
            language_model: "assets/models/tiny/llm".into(),
            generator: "assets/models/tiny/diffusion".into(),
            ranking: "runs/rank".into(),
            dtype: NetworkDtype::F32,
            vae: "assets/models/tiny/diffusion/vae".into(),
            glyph_recogniser: "assets/models/tiny/recogniser/glyph".into(),
            style_recogniser: "assets/models/tiny/recogniser/style".into(),
        }
    }
}

/// `[features]`: what the frozen networks say of items.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FeaturesConfig {
    /// Folder of the feature store; empty for `ragar/features` in the user's cache folder.
    pub store: PathBuf,
    /// Pictures and texts embedded at once.
    pub batch_size: usize,
    /// `[features.caption]`: how captions are decoded.
    pub caption: CaptionConfig,
}

impl Default for FeaturesConfig {
    fn default() -> Self {
        Self {
            store: PathBuf::new(),
            batch_size: 64,
            caption: CaptionConfig::default(),
        }
    }
}

/// `[inference]`: how images are drawn once training is over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct InferenceConfig {
    /// Denoising steps.
    pub num_steps: usize,
    /// Guidance; 1 switches it off.
    pub guidance_scale: f64,
    /// How much of a guided prediction is brought back to the deviation it had without guidance (diffusers' `guidance_rescale`);
    /// 0 leaves it as it is.
    #[serde(skip_serializing_if = "is_zero")]
    pub guidance_rescale: f64,
    /// Images denoised at once.
    pub images_per_batch: usize,
    /// Of the initial latents: a user and a reference have the same latent whoever draws.
    pub seed: u64,
    /// The sampler: `pipeline` is the generator's own; `ddim`, `pndm`, `dpm-solver++`, `dpm-solver++-karras`, `euler`,
    /// `euler-karras`, `unipc` and `lcm` take its noise schedule.
    pub scheduler: SchedulerChoice,
    /// Which part of the way from noise to image is gone, beginning with the reference's own picture (ours; diffusers'
    /// `strength`). 1 begins at pure noise (paper). Train with the same: `reflection.strength`.
    #[serde(skip_serializing_if = "is_whole")]
    pub strength: f64,
    /// Drawings of each user and reference, of which the one with the largest reward is kept (ours; 1: paper). More than one
    /// asks for a ranking model.
    pub candidates: usize,
    /// What a cosine of one with the reference's caption counts in that reward, beside the ranking model's score.
    pub likeness: f32,
}

impl Default for InferenceConfig {
    fn default() -> Self {
        Self {
            num_steps: 20,
            guidance_scale: 3.0,
            guidance_rescale: 0.0,
            images_per_batch: 16,
            seed: 0,
            scheduler: SchedulerChoice::Pipeline,
            strength: 1.0,
            candidates: 1,
            likeness: 1.0,
        }
    }
}

impl InferenceConfig {
    /// Steps and guidance as the generator takes them.
    pub fn options(&self) -> GenerateOptions {
        GenerateOptions {
            num_steps: self.num_steps,
            guidance_scale: self.guidance_scale,
            guidance_rescale: self.guidance_rescale,
            scheduler: self.scheduler,
            strength: self.strength,
        }
    }

    /// # Errors
    /// A sentence that names the key.
    pub fn validate(&self) -> Result<(), String> {
        if self.num_steps == 0 || self.images_per_batch == 0 {
            return Err("num_steps and images_per_batch must be at least 1".into());
        }
        if self.candidates == 0 {
            return Err("candidates must be at least 1".into());
        }
        if !self.likeness.is_finite() || self.likeness < 0.0 {
            return Err(format!(
                "likeness = {} must be a number of at least 0",
                self.likeness
            ));
        }
        if !self.guidance_scale.is_finite() || self.guidance_scale < 0.0 {
            return Err(format!(
                "guidance_scale = {} must be a number of at least 0",
                self.guidance_scale
            ));
        }
        if !(0.0..=1.0).contains(&self.guidance_rescale) {
            return Err(format!(
                "guidance_rescale = {} must be from 0 to 1",
                self.guidance_rescale
            ));
        }
        if !(self.strength > 0.0 && self.strength <= 1.0) {
            return Err(format!(
                "strength = {} must be above 0 and at most 1",
                self.strength
            ));
        }
        Ok(())
    }
}

/// What bootstrap and permutation test draw anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Resampled {
    /// Each user alone.
    #[default]
    Users,
    /// All users of one reference together; of stickers, of one glyph in whatever style.
    References,
}

/// `[evaluation]`: whom to draw for, and how scores are made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvaluationConfig {
    /// Users of the test split, the first so many; 0 for all.
    pub users: usize,
    /// Users shown with pictures in the report.
    pub shown: usize,
    /// `[evaluation.intervals]`: how intervals are drawn.
    pub intervals: BootstrapOptions,
    /// What an interval, and a test of a difference, of `ragar eval` takes as one: a user, or all users with one reference.
    pub resampled: Resampled,
    /// `[evaluation.style]`: how the style classifier is trained.
    pub style: StyleClassifierOptions,
    /// Seed of the random history images, one of the floors.
    pub seed: u64,
    /// Pictures of each user and method, from the latents of `inference.seed` and those after it; a user's score is
    /// their mean.
    pub seeds: u64,
    /// Folder of a perceptual distance: a classifier and the published heads of LPIPS. Empty: none is computed.
    pub lpips: PathBuf,
    /// FID's InceptionV3, as pytorch-fid publishes it: a file or a folder. Empty: CLIP-FID alone is computed.
    pub inception: PathBuf,
    /// Pictures compared at once on the device.
    pub batch_size: usize,
}

impl EvaluationConfig {
    /// # Errors
    /// A sentence that names the key.
    pub fn validate(&self) -> Result<(), String> {
        if self.seeds == 0 || self.batch_size == 0 {
            return Err("seeds and batch_size must be at least 1".into());
        }
        Ok(())
    }
}

impl Default for EvaluationConfig {
    fn default() -> Self {
        Self {
            users: 0,
            shown: 12,
            intervals: BootstrapOptions::default(),
            resampled: Resampled::default(),
            style: StyleClassifierOptions::default(),
            seed: 0,
            seeds: 1,
            lpips: PathBuf::new(),
            inception: PathBuf::new(),
            batch_size: 32,
        }
    }
}

/// `[ranking]`: the ranking model.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RankingConfig {
    /// A file of item features in place of what CLIP says: a .safetensors file with `image` and `text`, a row
    /// per line of items.csv each. Empty: CLIP. Pictures cannot be judged with it, only items ranked.
    pub features: PathBuf,
    /// `[ranking.model]`: its kind, its shape and the weights of its losses.
    pub model: MicroConfig,
    /// `[ranking.training]`: how it is trained.
    pub training: RecommenderTrainingConfig,
}

impl RankingConfig {
    /// Whether features come from a file.
    pub fn has_feature_file(&self) -> bool {
        !self.features.as_os_str().is_empty()
    }
}

/// `[pretrain]`: how each network of the tiny family is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PretrainConfig {
    /// `[pretrain.clip]`: text and visual encoder.
    pub clip: ClipPretrainingConfig,
    /// `[pretrain.captioner]`: BLIP-2.
    pub captioner: CaptionerPretrainingConfig,
    /// `[pretrain.llm]`: the language model.
    pub llm: LanguagePretrainingConfig,
    /// `[pretrain.vae]`: the autoencoder.
    pub vae: VaePretrainingConfig,
    /// `[pretrain.unet]`: the denoising network.
    pub unet: DiffusionPretrainingConfig,
    /// `[pretrain.glyph_recogniser]`: the judge of glyphs.
    pub glyph_recogniser: RecogniserPretrainingConfig,
    /// `[pretrain.style_recogniser]`: the judge of styles.
    pub style_recogniser: RecogniserPretrainingConfig,
}

impl Default for PretrainConfig {
    fn default() -> Self {
        Self {
            clip: ClipPretrainingConfig::default(),
            captioner: CaptionerPretrainingConfig::default(),
            llm: LanguagePretrainingConfig::default(),
            vae: VaePretrainingConfig::default(),
            unet: DiffusionPretrainingConfig::default(),
            glyph_recogniser: RecogniserPretrainingConfig::glyphs(),
            style_recogniser: RecogniserPretrainingConfig::styles(),
        }
    }
}
