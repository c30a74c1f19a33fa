//! Training of the recognisers of glyphs and of styles on training pairs.
//!
//! Cross-entropy with smoothed labels. There are only four or five pictures of each glyph, so they are moved, turned, scaled, tinted
//! and partly hidden; a style lives in edges and shades, which all that would blur, so there pictures are mirrored and moved by whole pixels
//! only. Part of them are shown as the generator's autoencoder gives them back, since what is judged later has been through it.

use std::collections::BTreeSet;
use std::path::Path;

use burn::tensor::activation::log_softmax;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Device, Int, Tensor, TensorData};
use image::RgbImage;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::augmentation::Augmentation;
use super::error::PretrainingError;
use super::extra::ExtraPictures;
use super::initial::seeded;
use super::trainer::{Evaluation, Trainer, TrainerConfig, num_parameters};
use super::vae::draw;
use crate::data::pixels::to_batch;
use crate::data::stickers::Sticker;
use crate::networks::recogniser::{
    Aspect, MODEL_TYPE, Recogniser, RecogniserConfig, RecogniserShape,
};
use crate::optimisation::{AdamWConfig, Decay, Interrupt, Progress, Schedule};

/// A run of recogniser training. None of these values comes from the paper.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecogniserPretrainingConfig {
    /// The network.
    pub shape: RecogniserShape,
    /// Steps, rates, intervals.
    pub trainer: TrainerConfig,
    /// Pictures of a step.
    pub batch_size: usize,
    /// How often a picture is shown as the generator's autoencoder gives it back.
    pub decoded_share: f64,
    /// Random changes of the pictures.
    pub augmentation: Augmentation,
    /// Part of each answer that is spread over all answers.
    pub label_smoothing: f64,
    /// Seed of weights, order and changes.
    pub seed: u64,
}

impl RecogniserPretrainingConfig {
    /// What is shipped for glyphs.
    pub fn glyphs() -> Self {
        Self {
            shape: RecogniserShape {
                stem_width: 24,
                stem_kernel: 5,
                stem_stride: 2,
                widths: vec![40, 80, 128],
                norm_num_groups: 8,
            },
            trainer: TrainerConfig {
                steps: 2000,
                schedule: Schedule {
                    learning_rate: 3e-3,
                    warmup_steps: 200,
                    decay: Decay::Cosine,
                    final_fraction: 0.01,
                },
                optimizer: AdamWConfig {
                    beta_2: 0.99,
                    weight_decay: 0.05,
                    ..AdamWConfig::default()
                },
                average_decay: 0.99,
                ..TrainerConfig::default()
            },
            batch_size: 64,
            decoded_share: 0.5,
            augmentation: Augmentation::STRONG,
            label_smoothing: 0.1,
            seed: 1,
        }
    }

    /// What is shipped for styles: the first convolution at full resolution, and nothing that blurs.
    pub fn styles() -> Self {
        let glyphs = Self::glyphs();
        Self {
            shape: RecogniserShape {
                stem_width: 24,
                stem_kernel: 3,
                stem_stride: 1,
                widths: vec![48, 96],
                norm_num_groups: 8,
            },
            trainer: TrainerConfig {
                steps: 1000,
                ..glyphs.trainer
            },
            augmentation: Augmentation::SHARP,
            ..glyphs
        }
    }

    /// Checks what the types cannot.
    ///
    /// # Errors
    /// When a number makes no run; the message names the key.
    pub fn validate(&self) -> Result<(), PretrainingError> {
        self.augmentation.validate()?;
        for (key, share) in [
            ("decoded_share", self.decoded_share),
            ("label_smoothing", self.label_smoothing),
        ] {
            if !(0.0..1.0).contains(&share) {
                return Err(PretrainingError::Setting {
                    key,
                    found: share.to_string(),
                    expected: "at least 0 and below 1",
                });
            }
        }
        if self.batch_size == 0 {
            return Err(PretrainingError::Setting {
                key: "batch_size",
                found: "0".into(),
                expected: "at least 1",
            });
        }
        Ok(())
    }
}

/// How often the right answer comes first, or among five.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Recognition {
    /// Pictures looked at.
    pub pictures: usize,
    /// Share of right names.
    pub right: f64,
    /// Share of right names among the first five; none where there are no more than five.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub right_in_five: Option<f64>,
}

impl std::fmt::Display for Recognition {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(to, "right {:.1} %", 100.0 * self.right)?;
        match self.right_in_five {
            Some(share) => write!(to, ", among five {:.1} %", 100.0 * share),
            None => Ok(()),
        }
    }
}

/// What a training run is worth.
#[derive(Debug, Clone, Serialize)]
pub struct RecogniserReport {
    /// Steps taken.
    pub steps: usize,
    /// Parameters of the network.
    pub parameters: usize,
    /// On pairs that were never trained on.
    pub held_out: Recognition,
    /// On the same, out of the autoencoder.
    pub held_out_decoded: Option<Recognition>,
    /// On training pairs.
    pub training: Recognition,
    /// Was the run stopped before its last step?
    pub interrupted: bool,
}

/// A trained recogniser (averaged weights) with its configuration.
#[derive(Debug)]
pub struct TrainedRecogniser<B: Backend> {
    pub network: Recogniser<B>,
    pub config: RecogniserConfig,
    pub report: RecogniserReport,
}

/// What is learned from.
#[derive(Debug, Clone, Copy)]
pub struct RecogniserData<'a> {
    /// What is to be named.
    pub aspect: Aspect,
    /// The stickers; those held out are measured on only.
    pub stickers: &'a [Sticker],
    /// Their pictures, in the same order.
    pub images: &'a [RgbImage],
    /// Further glyphs, from whose pictures styles are learned too.
    pub extra: Option<ExtraPictures<'a>>,
    /// Stickers and further glyphs as the generator's autoencoder gives them back.
    pub decoded: Option<[&'a [RgbImage]; 2]>,
}

/// Trains on the pairs that are not held out; checkpoints and `metrics.jsonl` go to `folder`. A run that finds checkpoints there goes
/// on from the newest. Pictures are square, of one size, and seen in [−1, 1].
///
/// # Errors
/// When the configuration or the data do not fit, the loss is not finite, or the disk refuses.
pub fn run<B: AutodiffBackend>(
    config: &RecogniserPretrainingConfig,
    data: &RecogniserData<'_>,
    folder: &Path,
    device: &Device<B>,
    frozen: &Device<B>,
    progress: &dyn Progress,
    interrupt: &Interrupt,
) -> Result<TrainedRecogniser<B::InnerBackend>, PretrainingError> {
    config.validate()?;
    let lessons = Lessons::new(config, data)?;
    let network_config = RecogniserConfig {
        model_type: MODEL_TYPE.into(),
        image_size: lessons.side,
        shape: config.shape.clone(),
        aspect: data.aspect,
        names: lessons.names.clone(),
    };
    let network = network_config.init::<B>(device)?;
    let network = seeded(network, config.seed, |_| false);
    let identity = json!({
        "network": network_config,
        "batch_size": config.batch_size,
        "seed": config.seed,
        "images": lessons.shown.len(),
    });
    let trainer = Trainer::<B, _>::open(
        &config.trainer,
        &identity,
        network,
        folder,
        frozen,
        progress,
    )?;
    let lesson = |network: &Recogniser<B>, step: usize| {
        let (pixels, answers) = lessons.batch::<B>(config, step, device);
        let loss = smoothed(network.forward(pixels), &answers, config.label_smoothing);
        Ok((loss, Vec::new()))
    };
    let evaluate = |averaged: &Recogniser<B::InnerBackend>, _: usize| {
        let found = measure(averaged, &lessons.held_out, frozen);
        Ok(Evaluation {
            metrics: json!({ "held_out": found }),
            words: format!("held-out pairs: {found}"),
        })
    };
    let name = format!("{}s", data.aspect.word());
    let outcome = trainer.run(&name, interrupt, lesson, evaluate)?;
    let network = outcome.network;
    let decoded = decoded(&lessons.held_out);
    let report = RecogniserReport {
        steps: outcome.steps,
        parameters: num_parameters(&network),
        held_out: measure(&network, &lessons.held_out, frozen),
        held_out_decoded: decoded.map(|decoded| measure(&network, &decoded, frozen)),
        training: measure(&network, &lessons.training, frozen),
        interrupted: outcome.interrupted,
    };
    Ok(TrainedRecogniser {
        network,
        config: network_config,
        report,
    })
}

/// A picture, the same out of the autoencoder, and the number of its name; what only held-out pairs have, has none.
#[derive(Clone, Copy)]
struct Lesson<'a> {
    image: &'a RgbImage,
    decoded: Option<&'a RgbImage>,
    name: Option<usize>,
}

struct Lessons<'a> {
    side: usize,
    names: Vec<String>,
    /// Training pairs, then further glyphs.
    shown: Vec<Lesson<'a>>,
    training: Vec<Lesson<'a>>,
    held_out: Vec<Lesson<'a>>,
}

impl<'a> Lessons<'a> {
    fn new(
        config: &RecogniserPretrainingConfig,
        data: &RecogniserData<'a>,
    ) -> Result<Self, PretrainingError> {
        let name = |sticker: &'a Sticker| match data.aspect {
            Aspect::Glyph => sticker.glyph.as_str(),
            Aspect::Style => sticker.style.name(),
        };
        let trained = data.stickers.iter().filter(|sticker| !sticker.held_out);
        let names: BTreeSet<&str> = trained.map(name).collect();
        let names: Vec<&str> = names.into_iter().collect();
        let side = data.images.first().map_or(0, RgbImage::width);
        let odd = |image: &&RgbImage| image.dimensions() != (side, side);
        let further = data.extra.map_or(&[][..], |extra| extra.images);
        if let Some(odd) = data.images.iter().chain(further).find(odd) {
            return Err(PretrainingError::Data(format!(
                "a picture of {:?} pixels among those of {side} × {side}",
                odd.dimensions()
            )));
        }
        if config.decoded_share > 0.0 && data.decoded.is_none() {
            return Err(PretrainingError::Setting {
                key: "decoded_share",
                found: config.decoded_share.to_string(),
                expected: "0 where no autoencoder is given",
            });
        }
        let [own, more] = match data.decoded {
            Some(decoded) => decoded.map(Some),
            None => [None; 2],
        };
        let lesson = |sticker, image, decoded: Option<&'a [RgbImage]>, place: usize| Lesson {
            image,
            decoded: decoded.and_then(|all| all.get(place)),
            name: names.binary_search(&name(sticker)).ok(),
        };
        let lessons = |held_out: bool| -> Vec<Lesson<'a>> {
            let all = data.stickers.iter().zip(data.images).enumerate();
            all.filter(|(_, (sticker, _))| sticker.held_out == held_out)
                .map(|(place, (sticker, image))| lesson(sticker, image, own, place))
                .collect()
        };
        let (training, held_out) = (lessons(false), lessons(true));
        if training.len() < config.batch_size || held_out.is_empty() {
            return Err(PretrainingError::Data(format!(
                "{} training and {} held-out pictures for batches of {}",
                training.len(),
                held_out.len(),
                config.batch_size
            )));
        }
        let mut shown = training.clone();
        if let Some(extra) = data.extra {
            let places = extra.usable(data.stickers).into_iter();
            let lessons = places
                .map(|place| lesson(&extra.stickers[place], &extra.images[place], more, place));
            // A glyph that only they have is no name.
            shown.extend(lessons.filter(|lesson| lesson.name.is_some()));
        }
        Ok(Self {
            side: side as usize,
            names: names.into_iter().map(String::from).collect(),
            shown,
            training,
            held_out,
        })
    }

    /// What step `step` shows: pixels and right answers.
    fn batch<B: Backend>(
        &self,
        config: &RecogniserPretrainingConfig,
        step: usize,
        device: &Device<B>,
    ) -> (Tensor<B, 4>, Vec<usize>) {
        let mut random = ChaCha8Rng::seed_from_u64(config.seed);
        random.set_stream(step as u64 + 1);
        let places = draw(self.shown.len(), config.batch_size, step, config.seed);
        let mut pixels = Vec::with_capacity(places.len() * 3 * self.side * self.side);
        let mut answers = Vec::with_capacity(places.len());
        for place in places {
            let lesson = &self.shown[place];
            let image = match lesson.decoded {
                Some(decoded) if random.random_bool(config.decoded_share) => decoded,
                _ => lesson.image,
            };
            pixels.extend(config.augmentation.apply(image, &mut random));
            answers.extend(lesson.name);
        }
        let shape = [answers.len(), 3, self.side, self.side];
        (
            Tensor::from_data(TensorData::new(pixels, shape), device),
            answers,
        )
    }
}

/// The same pictures out of the autoencoder, where it was given.
fn decoded<'a>(lessons: &[Lesson<'a>]) -> Option<Vec<Lesson<'a>>> {
    let out = |lesson: &Lesson<'a>| {
        Some(Lesson {
            image: lesson.decoded?,
            ..*lesson
        })
    };
    lessons.iter().map(out).collect()
}

fn measure<B: Backend>(
    network: &Recogniser<B>,
    lessons: &[Lesson<'_>],
    device: &Device<B>,
) -> Recognition {
    let (mut first, mut in_five, mut all) = (0, 0, true);
    for lessons in lessons.chunks(64) {
        let images: Vec<&RgbImage> = lessons.iter().map(|lesson| lesson.image).collect();
        // One more than five shows whether five are all.
        let named = network.name(to_batch(&images, device), 6);
        for (lesson, names) in lessons.iter().zip(named) {
            all &= names.len() <= 5;
            let Some(name) = lesson.name else { continue };
            first += usize::from(names.first() == Some(&name));
            in_five += usize::from(names.iter().take(5).any(|named| *named == name));
        }
    }
    let share = |count: usize| count as f64 / lessons.len().max(1) as f64;
    Recognition {
        pictures: lessons.len(),
        right: share(first),
        right_in_five: (!all).then(|| share(in_five)),
    }
}

/// Mean cross-entropy of `scores` `[batch, classes]` with answers of which `smoothing` is spread over all classes.
pub fn smoothed<B: Backend>(
    scores: Tensor<B, 2>,
    answers: &[usize],
    smoothing: f64,
) -> Tensor<B, 1> {
    let device = scores.device();
    let said = log_softmax(scores, 1);
    let places: Vec<i32> = answers.iter().map(|answer| *answer as i32).collect();
    let places = TensorData::new(places, [answers.len(), 1]);
    let places = Tensor::<B, 2, Int>::from_data(places, &device);
    let right = said.clone().gather(1, places).mean();
    (right.mul_scalar(1.0 - smoothing) + said.mean().mul_scalar(smoothing)).neg()
}
