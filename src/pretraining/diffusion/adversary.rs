//! Recognisers that the denoising network learns against.
//!
//! A squared error says little of a style: a picture in the middle of several costs less than one that is drawn in the wrong one. So two recognisers learn, beside the
//! network, to name what real latents show and to tell those that the network makes from them by one name more (Salimans et al., 2016); the network learns to have
//! what it makes named as its prompt says (class labels as in Odena et al., 2017, for the clean sample that one call of the network means, as in Sauer et al., 2023).
//! They are no part of what is saved, and see neither held-out pictures nor their captions.

use std::collections::BTreeSet;

use burn::module::Module;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Bool, Device, Tensor, TensorData};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::super::error::PretrainingError;
use super::super::initial::seeded;
use super::super::recogniser::smoothed;
use super::PromptedImages;
use crate::networks::diffusion::UNet2DConditionModel;
use crate::networks::recogniser::{Recogniser, RecogniserShape};
use crate::optimisation::{AdamWConfig, Decay, Schedule};

/// Part of an answer that is spread over all names.
const SMOOTHING: f64 = 0.05;
/// What a latent that the network made weighs beside a real one in a recogniser's loss.
const MADE_WEIGHT: f64 = 0.5;

/// The recognisers, and what they count.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdversarialConfig {
    /// Part of each step's images whose clean sample is judged; 0: no recogniser at all.
    pub share: f64,
    /// Weight of being named in the right style, beside the squared error.
    pub style_weight: f64,
    /// Weight of being named as the right glyph.
    pub glyph_weight: f64,
    /// How these images' time steps are drawn; below 1 those of much noise more often, where nothing but the prompt says what is to be drawn.
    pub timestep_power: f64,
    /// Real latents a step that recognisers learn from.
    pub num_real: usize,
    /// First steps in which recognisers alone learn, from real latents alone; the network's schedule begins behind them.
    pub warmup_steps: usize,
    /// The recognisers' learning rate over the steps: the network may learn no faster than they follow.
    pub schedule: Schedule,
    /// Their optimiser.
    pub optimizer: AdamWConfig,
    /// The recogniser of styles.
    pub style: RecogniserShape,
    /// The recogniser of glyphs.
    pub glyph: RecogniserShape,
}

impl Default for AdversarialConfig {
    fn default() -> Self {
        let shape = |widths: &[usize]| RecogniserShape {
            stem_width: 64,
            stem_kernel: 3,
            stem_stride: 1,
            widths: widths.to_vec(),
            norm_num_groups: 8,
        };
        Self {
            share: 0.0,
            style_weight: 0.1,
            glyph_weight: 0.1,
            timestep_power: 0.5,
            num_real: 64,
            warmup_steps: 600,
            schedule: Schedule {
                learning_rate: 7e-4,
                decay: Decay::Constant,
                ..Schedule::default()
            },
            // No momentum: what they have to tell apart changes with every step of the network.
            optimizer: AdamWConfig {
                beta_1: 0.0,
                beta_2: 0.99,
                ..AdamWConfig::default()
            },
            style: shape(&[96]),
            glyph: shape(&[96, 192]),
        }
    }
}

impl AdversarialConfig {
    /// Checks what the types cannot.
    pub(super) fn validate(&self) -> Result<(), PretrainingError> {
        let fail = |key, found: String, expected| {
            Err(PretrainingError::Setting {
                key,
                found,
                expected,
            })
        };
        if !(0.0..=1.0).contains(&self.share) {
            return fail("adversarial.share", self.share.to_string(), "from 0 to 1");
        }
        for (key, value) in [
            ("adversarial.style_weight", self.style_weight),
            ("adversarial.glyph_weight", self.glyph_weight),
        ] {
            if !(value.is_finite() && value >= 0.0) {
                return fail(key, value.to_string(), "0 or more");
            }
        }
        if !(self.timestep_power.is_finite() && self.timestep_power > 0.0) {
            let found = self.timestep_power.to_string();
            return fail("adversarial.timestep_power", found, "positive");
        }
        if self.share > 0.0 && self.num_real == 0 {
            return fail("adversarial.num_real", "0".into(), "at least 1");
        }
        Ok(())
    }

    /// Do the recognisers fit latents of `side`?
    pub(super) fn validate_shapes(&self, side: usize) -> Result<(), PretrainingError> {
        for (key, shape) in [
            ("adversarial.style", &self.style),
            ("adversarial.glyph", &self.glyph),
        ] {
            shape
                .validate(side)
                .map_err(|error| PretrainingError::Setting {
                    key,
                    found: error.to_string(),
                    expected: "a shape that fits the latents",
                })?;
        }
        Ok(())
    }
}

/// What is trained: the network, and the recognisers it learns against, if any.
#[derive(Module, Debug)]
pub struct Contest<B: Backend> {
    /// What is kept.
    pub network: UNet2DConditionModel<B>,
    /// Of styles and of glyphs, as far as they count.
    pub recognisers: Vec<Recogniser<B>>,
}

/// The names that one recogniser tells apart.
#[derive(Debug)]
struct Names {
    /// In the metrics.
    word: &'static str,
    weight: f64,
    shape: RecogniserShape,
    count: usize,
    /// Of each image.
    answers: Vec<usize>,
}

impl Names {
    fn new(word: &'static str, weight: f64, shape: &RecogniserShape, names: &[String]) -> Self {
        let distinct: BTreeSet<&String> = names.iter().collect();
        let distinct: Vec<&String> = distinct.into_iter().collect();
        let place = |name| distinct.binary_search(&name).expect("one of them");
        Self {
            word,
            weight,
            shape: shape.clone(),
            count: distinct.len(),
            answers: names.iter().map(place).collect(),
        }
    }
}

/// What the recognisers are asked.
#[derive(Debug)]
pub struct Adversary {
    warmup_steps: usize,
    names: Vec<Names>,
}

impl Adversary {
    /// The names are those of `data`.
    pub fn new(config: &AdversarialConfig, data: &PromptedImages) -> Self {
        let all = [
            ("style", config.style_weight, &config.style, &data.styles),
            ("glyph", config.glyph_weight, &config.glyph, &data.glyphs),
        ];
        let all = all
            .into_iter()
            .filter(|(_, weight, ..)| config.share > 0.0 && *weight > 0.0);
        Self {
            warmup_steps: config.warmup_steps,
            names: all
                .map(|(word, weight, shape, names)| Names::new(word, weight, shape, names))
                .collect(),
        }
    }

    /// One for each list of names, with one name more for what the network makes.
    pub fn recognisers<B: Backend>(
        &self,
        channels: usize,
        seed: u64,
        device: &Device<B>,
    ) -> Vec<Recogniser<B>> {
        let new = |names: &Names| {
            let network = names.shape.init(channels, names.count + 1, device);
            seeded(network, seed, |_| false)
        };
        self.names.iter().map(new).collect()
    }

    /// First steps in which recognisers alone learn.
    pub fn steps_alone(&self) -> usize {
        match self.names.is_empty() {
            true => 0,
            false => self.warmup_steps,
        }
    }

    /// Do recognisers alone learn in this step?
    pub fn alone(&self, step: usize) -> bool {
        step < self.steps_alone()
    }

    /// What the recognisers learn in a step, `[1]`: to name the `real` latents of `images` and, where the network `made` some, to tell them by the last name.
    pub fn lesson<B: AutodiffBackend>(
        &self,
        contest: &Contest<B>,
        real: Tensor<B, 4>,
        images: &[usize],
        made: Option<&Tensor<B, 4>>,
        random: &mut ChaCha8Rng,
    ) -> Tensor<B, 1> {
        let device = real.device();
        let real = moved(real, random);
        let made = made.map(|made| moved(made.clone().detach(), random));
        let losses = contest.recognisers.iter().zip(&self.names);
        let losses = losses.map(|(recogniser, names)| {
            let answers: Vec<usize> = images.iter().map(|&image| names.answers[image]).collect();
            let loss = smoothed(recogniser.forward(real.clone()), &answers, SMOOTHING);
            match &made {
                None => loss,
                Some(made) => {
                    let answers = vec![names.count; made.dims()[0]];
                    let told = smoothed(recogniser.forward(made.clone()), &answers, SMOOTHING);
                    loss + told.mul_scalar(MADE_WEIGHT)
                }
            }
        });
        losses.fold(Tensor::zeros([1], &device), |sum, loss| sum + loss)
    }

    /// How far the recognisers, which learn nothing from it, are from naming `made` as `images` are named: each aspect's word and loss, weighted.
    pub fn verdicts<B: AutodiffBackend>(
        &self,
        contest: &Contest<B>,
        made: &Tensor<B, 4>,
        images: &[usize],
        random: &mut ChaCha8Rng,
    ) -> Vec<(&'static str, Tensor<B, 1>)> {
        let made = moved(made.clone(), random);
        let asked = contest.recognisers.iter().zip(&self.names);
        asked
            .map(|(recogniser, names)| {
                let num_images = names.answers.len();
                let answers: Vec<usize> = images
                    .iter()
                    .map(|&image| names.answers[image % num_images])
                    .collect();
                let scores = recogniser.clone().no_grad().forward(made.clone());
                let loss = smoothed(scores, &answers, SMOOTHING).mul_scalar(names.weight);
                (names.word, loss)
            })
            .collect()
    }
}

/// The latents mirrored, each at random, and all moved by a cell or none along each axis: recognisers learn the few real ones by heart less quickly. What is true of a
/// style and of a glyph stays true.
fn moved<B: Backend>(latents: Tensor<B, 4>, random: &mut ChaCha8Rng) -> Tensor<B, 4> {
    let device = latents.device();
    let shape = latents.dims();
    let mirrored: Vec<bool> = (0..shape[0]).map(|_| random.random_bool(0.5)).collect();
    let mirrored = TensorData::new(mirrored, [shape[0], 1, 1, 1]);
    let mirrored = Tensor::<B, 4, Bool>::from_data(mirrored, &device).expand(shape);
    let mut cells = || random.random_range(-1..=1i64);
    let cells = [cells(), cells()];
    let turned = latents.clone().flip([3]);
    latents.mask_where(mirrored, turned).roll(&cells, &[2, 3])
}
