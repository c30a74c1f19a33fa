//! Contrastive pretraining of the tiny CLIP on sticker training pairs, in two parts.
//!
//! A thousand pictures are too few for two towers to find each other from nothing in reasonable time. So the text
//! tower is trained first, alone, on descriptions: linear heads in the joint space name glyph, group and style (where
//! the text says one), so that all ways to describe a sticker meet in one place and related stickers lie near.
//! Then the text tower rests and the vision tower is trained against it (the reverse of Zhai et al., LiT, 2022).
//!
//! The second part's core is CLIP's symmetric InfoNCE (Radford et al., 2021). What is ours, because a sticker has two
//! things to tell apart (glyph and style) and its descriptions may leave the style out:
//! - a batch holds each of its glyphs in several styles, and each glyph beside others of its group, so that both
//!   a wrong style and a wrong glyph are among the negatives;
//! - all pictures that a text describes count as its positives, in equal parts (a text without a style describes
//!   its glyph in every style);
//! - `attribute_weight` adds the cross-entropies of the text part's heads, now fixed, at the pictures' places;
//! - `image_weight` adds a contrastive term between pictures whose positives are the same glyph in other styles
//!   (Khosla et al., 2020), which shapes the space in which nearest glyphs are looked for;
//! - pictures of further glyphs, which have no part in any experiment, train the vision tower's style and group heads
//!   and the term between pictures: five styles of a few hundred glyphs are not enough to learn what a style is;
//! - half of the patches are left out in most steps (Li et al., FLIP, 2023), which halves the time.
//!
//! Held-out pairs are never seen. Reading and writing files is the caller's, checkpoints and the log excepted.

mod attributes;
mod batch;
mod initial;
mod loss;
mod quality;

use std::path::Path;

use burn::module::{AutodiffModule, Module};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Int, Tensor, TensorData};
use image::RgbImage;
use serde::{Deserialize, Serialize};

use super::augmentation::Augmentation;
use super::error::PretrainingError;
use super::extra::ExtraPictures;
use crate::data::stickers::{Sticker, Style, caption, caption_variant};
use crate::networks::clip::{
    Clip, ClipConfig, ClipPreprocessing, ClipTextConfig, ClipVisionConfig, normalise,
};
use crate::nn::activation::Activation;
use crate::optimisation::parameters::{ParameterError, Selection, collect, restore};
use crate::optimisation::{
    AdamW, AdamWConfig, Checkpoint, CheckpointError, CheckpointStore, Interrupt, MetricsLog,
    ParameterAverage, Progress, Schedule,
};
use crate::text::{BytePairKind, TextTokenizer, TokenizerError};

use attributes::{Answers, Attributes};

pub use quality::{ClipQuality, PairQuality, measure, model_card};

/// A pretraining that cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum ClipPretrainingError {
    /// The stickers do not fit the configuration.
    #[error("{0}")]
    Data(String),
    /// The configuration does not fit itself.
    #[error("pretrain.clip.{field}: {reason}")]
    Configuration {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// Pictures cannot be changed as asked.
    #[error("pretrain.clip: {0}")]
    Augmentation(#[from] PretrainingError),
    /// The tokeniser cannot be trained.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// A checkpoint cannot be written or taken up.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A checkpoint of another architecture.
    #[error("the checkpoint does not fit the network: {0}")]
    Parameter(#[from] ParameterError),
    /// The log cannot be written.
    #[error("metrics.jsonl: {0}")]
    Log(std::io::Error),
    /// The loss became infinite or no number.
    #[error(
        "step {step}: the loss is {loss}; lower pretrain.clip.schedule.learning_rate and resume from the last checkpoint"
    )]
    Diverged {
        /// The step.
        step: usize,
        /// The loss.
        loss: f32,
    },
    /// Stopped by a signal; everything is saved.
    #[error("interrupted after step {step}: run the same command again to go on")]
    Interrupted {
        /// Steps taken.
        step: usize,
    },
}

/// Sizes of the tiny CLIP.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClipSizes {
    /// Width of both towers.
    pub width: usize,
    /// Layers of each tower.
    pub num_layers: usize,
    /// Attention heads of each tower.
    pub num_heads: usize,
    /// Width of the joint space.
    pub projection_dim: usize,
    /// Side of a picture, in pixels.
    pub image_size: usize,
    /// Side of a patch, in pixels.
    pub patch_size: usize,
    /// Longest text, in tokens.
    pub context: usize,
    /// Most tokens of the byte-pair vocabulary, special ones included.
    pub vocab_size: usize,
}

impl Default for ClipSizes {
    fn default() -> Self {
        Self {
            width: 128,
            num_layers: 4,
            num_heads: 4,
            projection_dim: 128,
            image_size: 64,
            patch_size: 8,
            context: 32,
            vocab_size: 1400,
        }
    }
}

/// One contrastive pretraining.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClipPretrainingConfig {
    /// Everything random follows from it.
    pub seed: u64,
    /// Steps of the text part.
    pub text_steps: usize,
    /// Descriptions of a batch of the text part.
    pub text_batch: usize,
    /// Learning rate of the text part.
    pub text_schedule: Schedule,
    /// Steps of the picture part.
    pub num_steps: usize,
    /// Glyphs of a batch.
    pub num_glyphs: usize,
    /// Most styles of each glyph in a batch.
    pub num_styles: usize,
    /// Further glyphs of a batch, if there are any.
    pub num_extra_glyphs: usize,
    /// Weight of the attributes' cross-entropies at the pictures' places.
    pub attribute_weight: f64,
    /// Weight of the term between pictures.
    pub image_weight: f64,
    /// Temperature of the term between pictures.
    pub image_temperature: f64,
    /// Share of the patches that most steps look at.
    pub kept_patches: f64,
    /// Part of the steps, at the end, that look at all patches.
    pub whole_share: f64,
    /// Sizes of the network.
    pub sizes: ClipSizes,
    /// Learning rate of the picture part.
    pub schedule: Schedule,
    /// AdamW.
    pub optimizer: AdamWConfig,
    /// Decay of the parameters' running average, which is what is kept in the end.
    pub average_decay: f64,
    /// What is done to training pictures.
    pub augmentation: Augmentation,
    /// How often a training picture is shown as the generator's autoencoder gives it back. What is judged later has
    /// been through it; a judge that never saw it takes its softness for another style.
    pub decoded_share: f64,
    /// Steps between two checkpoints.
    pub checkpoint_every: usize,
    /// Steps between two measurements on held-out pairs; 0 measures at the end only.
    pub evaluate_every: usize,
    /// Steps between two lines of the log.
    pub log_every: usize,
}

impl Default for ClipPretrainingConfig {
    fn default() -> Self {
        Self {
            seed: 1,
            text_steps: 500,
            text_batch: 128,
            text_schedule: Schedule {
                learning_rate: 1e-3,
                warmup_steps: 50,
                ..Schedule::default()
            },
            num_steps: 4000,
            num_glyphs: 12,
            num_styles: 4,
            num_extra_glyphs: 12,
            attribute_weight: 1.0,
            image_weight: 0.3,
            image_temperature: 0.1,
            kept_patches: 0.5,
            whole_share: 0.25,
            sizes: ClipSizes::default(),
            schedule: Schedule {
                learning_rate: 2e-3,
                warmup_steps: 100,
                final_fraction: 0.02,
                ..Schedule::default()
            },
            optimizer: AdamWConfig {
                beta_2: 0.98,
                weight_decay: 0.1,
                ..AdamWConfig::default()
            },
            average_decay: 0.99,
            augmentation: Augmentation::default(),
            decoded_share: 0.0,
            checkpoint_every: 250,
            evaluate_every: 500,
            log_every: 10,
        }
    }
}

impl ClipPretrainingConfig {
    /// Checks what the types cannot.
    ///
    /// # Errors
    /// When a number makes no run; the message names the field.
    pub fn validate(&self) -> Result<(), ClipPretrainingError> {
        let positive = [
            ("text_batch", self.text_batch),
            ("num_styles", self.num_styles),
            ("checkpoint_every", self.checkpoint_every),
            ("log_every", self.log_every),
        ];
        let fail = |field, reason: &str| {
            Err(ClipPretrainingError::Configuration {
                field,
                reason: reason.into(),
            })
        };
        if let Some((field, _)) = positive.into_iter().find(|(_, value)| *value == 0) {
            return fail(field, "must be positive");
        }
        if self.num_glyphs < 2 {
            return fail("num_glyphs", "a batch needs at least two glyphs to compare");
        }
        if self.image_temperature <= 0.0 {
            return fail("image_temperature", "must be positive");
        }
        if !(self.kept_patches > 0.0 && self.kept_patches <= 1.0) {
            return fail("kept_patches", "must lie in (0, 1]");
        }
        self.augmentation.validate()?;
        if !(0.0..=1.0).contains(&self.decoded_share) {
            return fail("decoded_share", "must lie in [0, 1]");
        }
        if !(0.0..1.0).contains(&self.average_decay) {
            return fail("average_decay", "must lie in [0, 1)");
        }
        Ok(())
    }

    /// The network's configuration, for a vocabulary whose last token ends a text.
    fn network(&self, tokenizer: &TextTokenizer) -> ClipConfig {
        let sizes = &self.sizes;
        ClipConfig {
            text_config: ClipTextConfig {
                vocab_size: tokenizer.vocab_size(),
                hidden_size: sizes.width,
                intermediate_size: 4 * sizes.width,
                projection_dim: sizes.projection_dim,
                num_hidden_layers: sizes.num_layers,
                num_attention_heads: sizes.num_heads,
                max_position_embeddings: sizes.context,
                hidden_act: Activation::QuickGelu,
                layer_norm_eps: 1e-5,
                eos_token_id: tokenizer.eos_id().unwrap_or_default(),
            },
            vision_config: ClipVisionConfig {
                hidden_size: sizes.width,
                intermediate_size: 4 * sizes.width,
                projection_dim: sizes.projection_dim,
                num_hidden_layers: sizes.num_layers,
                num_attention_heads: sizes.num_heads,
                num_channels: 3,
                image_size: sizes.image_size,
                patch_size: sizes.patch_size,
                hidden_act: Activation::QuickGelu,
                layer_norm_eps: 1e-5,
            },
            projection_dim: sizes.projection_dim,
            logit_scale_init_value: 2.6592,
        }
    }
}

/// What a pretraining leaves.
#[derive(Debug, Clone)]
pub struct TrainedClip<B: Backend> {
    /// Configuration of the network.
    pub config: ClipConfig,
    /// The averaged weights.
    pub network: Clip<B>,
    /// The vocabulary learnt from the training captions.
    pub tokenizer: TextTokenizer,
    /// What pictures go through.
    pub preprocessing: ClipPreprocessing,
    /// Measured on held-out pairs, and on training pairs to compare.
    pub quality: ClipQuality,
    /// Glyphs beside those of the experiments whose pictures were used.
    pub num_extra_glyphs: usize,
    /// Did it start from given weights?
    pub started: bool,
}

/// Weights to start from, with the vocabulary that they speak. Their text tower rests from the beginning: what was
/// trained on its states, a generator for one, stays valid.
#[derive(Debug)]
pub struct Start<'a, B: Backend> {
    /// The network.
    pub network: &'a Clip<B>,
    /// Its configuration.
    pub config: &'a ClipConfig,
    /// Its vocabulary.
    pub tokenizer: &'a TextTokenizer,
}

/// What is learned from.
#[derive(Debug, Clone, Copy)]
pub struct TrainingPictures<'a> {
    /// The stickers; those held out are measured on only.
    pub stickers: &'a [Sticker],
    /// Their pictures, in the same order.
    pub images: &'a [RgbImage],
    /// Further glyphs.
    pub extra: Option<ExtraPictures<'a>>,
    /// `images` and those of `extra` as the generator's autoencoder gives them back.
    pub decoded: Option<[&'a [RgbImage]; 2]>,
}

/// Trains on the stickers that are not held out, from random weights or from `start`.
/// Goes on from the newest checkpoint under `output/checkpoints`, and logs to `output/metrics.jsonl`.
///
/// # Errors
/// Stickers or weights that do not fit, a broken checkpoint folder, a diverging loss, an interruption.
pub fn run<B: AutodiffBackend>(
    config: &ClipPretrainingConfig,
    pictures: TrainingPictures<'_>,
    start: Option<Start<'_, B::InnerBackend>>,
    output: &Path,
    device: &B::Device,
    progress: &dyn Progress,
    interrupt: &Interrupt,
) -> Result<TrainedClip<B::InnerBackend>, ClipPretrainingError> {
    config.validate()?;
    let preprocessing = ClipPreprocessing::symmetric(config.sizes.image_size as u32);
    let TrainingPictures {
        stickers, images, ..
    } = pictures;
    let sampler = batch::Sampler::new(config, pictures)?;
    let tokenizer = match &start {
        Some(start) => start.tokenizer.clone(),
        None => train_tokenizer(config, stickers)?,
    };
    let network_config = config.network(&tokenizer);
    network_config
        .validate()
        .map_err(|error| ClipPretrainingError::Configuration {
            field: "sizes",
            reason: error.to_string(),
        })?;

    if let Some(start) = &start
        && *start.config != network_config
    {
        return Err(ClipPretrainingError::Configuration {
            field: "sizes",
            reason: "the weights to start from are of other sizes".into(),
        });
    }

    let [num_glyphs, num_groups] = sampler.num_classes();
    let trainee = Trainee {
        clip: network_config.init::<B>(device),
        attributes: Attributes::new(
            network_config.projection_dim,
            num_glyphs,
            num_groups,
            Style::ALL.len(),
            device,
        ),
    };
    let mut trainee = initial::seeded(trainee, &network_config, config.seed)?;
    if let Some(start) = &start {
        let weights = collect(start.network, Selection::All);
        trainee.clip = restore(trainee.clip, &weights, Selection::All)?;
        trainee = trainee.with_resting_tower();
    }
    let mut optimizer = AdamW::<B>::new(config.optimizer.clone());
    let mut average = ParameterAverage::<B::InnerBackend>::new(config.average_decay);
    let inner_device = trainee.valid().clip.logit_scale.val().device();

    let total_steps = config.text_steps + config.num_steps;
    let store = CheckpointStore::new(&output.join("checkpoints"), config, 2);
    let mut skipped = Vec::new();
    let mut first = 0;
    if let Some(checkpoint) = store.latest(&mut skipped)? {
        first = checkpoint.step;
        if first > config.text_steps {
            trainee = trainee.with_resting_text();
        }
        trainee = restore(trainee, &checkpoint.group("parameters"), Selection::All)?;
        let taken = if first > config.text_steps {
            first - config.text_steps
        } else {
            first
        };
        let moments = checkpoint.group("optimizer");
        optimizer.restore(&trainee, &moments, taken, &inner_device)?;
        let averages = checkpoint.group("average");
        average.restore(&trainee.valid(), &averages, taken, &inner_device)?;
        progress.note(&format!("resumed after step {first}"));
    }
    for sentence in &skipped {
        progress.note(sentence);
    }
    let mut log = MetricsLog::open(&output.join("metrics.jsonl"), first)
        .map_err(ClipPretrainingError::Log)?;

    progress.begin("contrastive pretraining", total_steps);
    for step in first..total_steps {
        if step == config.text_steps {
            // The averaged text tower is the one that rests; one that was given stays as it is, to the bit.
            let mut averaged = average.apply(trainee.valid());
            if start.is_some() {
                averaged.clip = trainee.valid().clip;
            }
            let averaged = collect(&averaged, Selection::All);
            trainee = restore(trainee, &averaged, Selection::All)?.with_resting_text();
            optimizer = AdamW::new(config.optimizer.clone());
            average = ParameterAverage::new(config.average_decay);
        }
        let (total, parts, rate) = if step < config.text_steps {
            let texts = sampler.draw_texts(step, config.text_batch);
            let total = trainee.text_loss(&texts, &tokenizer, config, device);
            let rate = config.text_schedule.rate(step, config.text_steps);
            (total, None, rate)
        } else {
            let place = step - config.text_steps;
            let batch = sampler.draw(place);
            let parts = trainee.picture_loss(&batch, &tokenizer, config, place, device);
            let rate = config.schedule.rate(place, config.num_steps);
            (parts.total(config), Some(parts), rate)
        };
        let gradients = total.backward();
        let (updated, norm) = optimizer.step(trainee, gradients, rate);
        trainee = updated;
        average.update(&trainee.valid());
        if step % config.log_every == 0 || step + 1 == total_steps {
            let total = scalar(total);
            if !total.is_finite() {
                return Err(ClipPretrainingError::Diverged { step, loss: total });
            }
            // Read off the device only here.
            let mut line = parts.map(|parts| parts.named()).unwrap_or_default();
            line.insert("loss".into(), total.into());
            line.insert("gradient_norm".into(), scalar(norm).into());
            line.insert("learning_rate".into(), rate.into());
            log.write(step, &line).map_err(ClipPretrainingError::Log)?;
            progress.advance(step + 1, &format!("loss {total:.3}"));
        }
        let done = step + 1;
        let last = done == total_steps;
        let due = done.is_multiple_of(config.checkpoint_every) || done == config.text_steps;
        if due || last || interrupt.is_raised() {
            store.save(&Checkpoint {
                step: done,
                tensors: [
                    ("parameters".into(), collect(&trainee, Selection::All)),
                    ("optimizer".into(), optimizer.state(&trainee)),
                    ("average".into(), average.state(&trainee.valid())),
                ]
                .into(),
                values: serde_json::Value::Null,
            })?;
        }
        if interrupt.is_raised() && !last {
            return Err(ClipPretrainingError::Interrupted { step: done });
        }
        let measured = config.evaluate_every > 0
            && done > config.text_steps
            && (done - config.text_steps).is_multiple_of(config.evaluate_every);
        if measured && !last {
            let averaged = average.apply(trainee.valid()).clip;
            let quality = measure(&averaged, &tokenizer, &preprocessing, stickers, images);
            log.write(step, &quality)
                .map_err(ClipPretrainingError::Log)?;
            progress.note(&format!("step {done}: {quality}"));
        }
    }
    progress.end();
    let rested = trainee.valid().clip;
    let mut network = average.apply(trainee.valid()).clip;
    if config.num_steps > 0 {
        // Averaging equal numbers still rounds: keep the very ones that rested.
        network.text_model = rested.text_model;
        network.text_projection = rested.text_projection;
    }
    let quality = measure(&network, &tokenizer, &preprocessing, stickers, images);
    progress.note(&format!("step {total_steps}: {quality}"));
    Ok(TrainedClip {
        config: network_config,
        network,
        tokenizer,
        preprocessing,
        quality,
        num_extra_glyphs: sampler.num_extra(),
        started: start.is_some(),
    })
}

/// What is trained: the network, and heads that are thrown away afterwards.
#[derive(Module, Debug)]
struct Trainee<B: Backend> {
    clip: Clip<B>,
    attributes: Attributes<B>,
}

impl<B: Backend> Trainee<B> {
    /// Text tower and its projection without gradients from now on.
    fn with_resting_tower(mut self) -> Self {
        self.clip.text_model = self.clip.text_model.no_grad();
        self.clip.text_projection = self.clip.text_projection.no_grad();
        self
    }

    /// The heads too.
    fn with_resting_text(self) -> Self {
        let mut resting = self.with_resting_tower();
        resting.attributes = resting.attributes.no_grad();
        resting
    }

    fn text_loss(
        &self,
        texts: &batch::Rows,
        tokenizer: &TextTokenizer,
        config: &ClipPretrainingConfig,
        device: &B::Device,
    ) -> Tensor<B, 1> {
        let ids = token_ids::<B>(tokenizer, &texts.texts, config.sizes.context, device);
        let embeds = normalise(self.clip.text_embeds(ids));
        self.attributes
            .loss(embeds, self.answers(texts, true, device))
    }

    fn picture_loss(
        &self,
        batch: &batch::Batch,
        tokenizer: &TextTokenizer,
        config: &ClipPretrainingConfig,
        place: usize,
        device: &B::Device,
    ) -> PictureLoss<B> {
        let said = &batch.rows;
        let ids = token_ids::<B>(tokenizer, &said.texts, config.sizes.context, device);
        let texts = normalise(self.clip.text_embeds(ids));
        let whole_from = (config.num_steps as f64 * (1.0 - config.whole_share)) as usize;
        let kept = (place < whole_from && config.kept_patches < 1.0).then(|| {
            let num_patches = (config.sizes.image_size / config.sizes.patch_size).pow(2);
            let kept = batch::kept_tokens(config.seed, place, num_patches, config.kept_patches);
            Tensor::<B, 1, Int>::from_data(kept, device)
        });
        let pixels = Tensor::<B, 4>::from_data(batch.pixels(), device);
        let pooled = self
            .clip
            .vision_model
            .forward_kept(pixels, kept)
            .pooler_output;
        let images = normalise(self.clip.visual_projection.forward(pooled));
        let parts = loss::contrastive(
            self.clip.logit_scale.val(),
            texts,
            images.clone(),
            Tensor::from_data(said.described(), device),
            Tensor::from_data(said.same_glyph(), device),
            config.image_temperature,
        );
        PictureLoss {
            text: parts.text,
            image: parts.image,
            attributes: self
                .attributes
                .loss(images, self.answers(said, false, device)),
        }
    }

    /// What the heads should answer; about texts, only what they say.
    fn answers(&self, texts: &batch::Rows, as_said: bool, device: &B::Device) -> Answers<B> {
        let [num_glyphs, num_groups, num_styles] = self.attributes.num_classes();
        Answers {
            glyph: Tensor::from_data(texts.glyph_answers(num_glyphs), device),
            group: Tensor::from_data(texts.group_answers(num_groups), device),
            style: Tensor::from_data(texts.style_answers(num_styles, as_said), device),
        }
    }
}

/// The parts of the picture part's loss, `[1]` each.
struct PictureLoss<B: Backend> {
    text: Tensor<B, 1>,
    image: Tensor<B, 1>,
    attributes: Tensor<B, 1>,
}

impl<B: Backend> PictureLoss<B> {
    fn total(&self, config: &ClipPretrainingConfig) -> Tensor<B, 1> {
        self.text.clone()
            + self.image.clone().mul_scalar(config.image_weight)
            + self.attributes.clone().mul_scalar(config.attribute_weight)
    }

    /// The parts by name, read off the device.
    fn named(&self) -> serde_json::Map<String, serde_json::Value> {
        [
            ("text_loss", &self.text),
            ("image_loss", &self.image),
            ("attribute_loss", &self.attributes),
        ]
        .into_iter()
        .map(|(name, part)| (name.to_string(), scalar(part.clone()).into()))
        .collect()
    }
}

/// A vocabulary from the captions and the other forms of the training stickers' descriptions.
fn train_tokenizer(
    config: &ClipPretrainingConfig,
    stickers: &[Sticker],
) -> Result<TextTokenizer, ClipPretrainingError> {
    let mut rng = batch::stream(config.seed, batch::Stream::Vocabulary, 0);
    let mut corpus = Vec::new();
    for sticker in stickers.iter().filter(|sticker| !sticker.held_out) {
        corpus.push(caption(sticker));
        corpus.extend((0..4).map(|_| caption_variant(sticker, &mut rng)));
        corpus.push(sticker.tags.join(", "));
    }
    let tokenizer = TextTokenizer::train_byte_pair(
        corpus.iter().map(String::as_str),
        config.sizes.vocab_size,
        &BytePairKind::Clip,
    )?;
    Ok(tokenizer.with_max_length(config.sizes.context))
}

/// Rows of ids as long as the longest of them: what follows an end token changes nothing before it.
fn token_ids<B: Backend>(
    tokenizer: &TextTokenizer,
    texts: &[String],
    context: usize,
    device: &B::Device,
) -> Tensor<B, 2, Int> {
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let (rows, mask) = tokenizer.encode_padded(&texts, context);
    let longest = mask
        .iter()
        .map(|row| row.iter().filter(|real| **real).count())
        .max()
        .unwrap_or(1);
    let values: Vec<i32> = rows
        .iter()
        .flat_map(|row| row[..longest].iter().map(|id| *id as i32))
        .collect();
    Tensor::from_data(TensorData::new(values, [rows.len(), longest]), device)
}

/// One number off the device.
fn scalar<B: Backend>(tensor: Tensor<B, 1>) -> f32 {
    tensor.into_data().iter::<f32>().next().unwrap_or(f32::NAN)
}
