//! From a trained model to what can be shown: every method draws for the same users, one judge scores all, and the
//! report puts pictures and numbers side by side.

mod gallery;
mod scores;
mod training;
mod validation;

use std::path::Path;

use anyhow::Context as _;
use burn::tensor::{Tensor, TensorData};
use image::RgbImage;

use crate::app::assembly::Workshop;
use crate::app::assembly::choice::{choice, chooser};
use crate::app::backend::Backend;
use crate::app::config::{METHOD, RunConfig};
use crate::app::output::Output;
use crate::app::report::{Fact, ReportData};
use crate::baselines::stable_diffusion;
use crate::data::history::History;
use crate::data::pixels::to_pictures;
use crate::generation::drawing::Drawing;
use crate::generation::preference::PreferenceModel;
use crate::generation::sample::Sample;
use crate::optimisation::Progress;
use crate::preparation::ItemFeatures;
use crate::reflection::discriminator::{Case, Discriminator as _, VisualEncoder as _};
use crate::reflection::reward::Judgement;

pub use training::charts;
pub use validation::{Columns, HeldOut};

/// Users whose conditionings are computed at once.
const USERS_AT_ONCE: usize = 32;

/// Everything that drawing and judging need, loaded.
pub struct Exhibition<'a> {
    /// Settings.
    pub config: &'a RunConfig,
    /// Data, networks and the judge.
    pub workshop: &'a Workshop,
    /// What the frozen networks say of items.
    pub items: &'a ItemFeatures,
}

/// A user to draw for.
pub struct Visitor<'a> {
    /// History, reference, and target where known.
    pub history: &'a History,
    /// What the method made of it.
    pub sample: Sample,
}

impl<'a> Visitor<'a> {
    /// The users whose reference the ranking model can judge.
    ///
    /// # Errors
    /// See [`Workshop::samples`].
    pub fn all(
        workshop: &Workshop,
        config: &RunConfig,
        items: &ItemFeatures,
        histories: &[&'a History],
        output: Output,
    ) -> anyhow::Result<Vec<Self>> {
        let samples = workshop.samples(config, items, histories, output)?;
        let visitors = samples.into_iter();
        Ok(visitors
            .map(|(history, sample)| Self { history, sample })
            .collect())
    }
}

/// One method's images, one for each user.
pub struct Works {
    /// The method.
    pub name: &'static str,
    /// Its images.
    pub pictures: Vec<RgbImage>,
    /// Their embeddings, at length one.
    pub embeddings: Vec<Vec<f32>>,
    /// Their scores and ranks in the reference's place.
    pub judgements: Vec<Judgement>,
}

impl Exhibition<'_> {
    /// Draws for every visitor: from the keywords alone, as Stable Diffusion would, and with the preference model.
    ///
    /// # Errors
    /// When the scheduler refuses `inference.num_steps`.
    pub fn draw(
        &self,
        visitors: &[Visitor<'_>],
        model: &PreferenceModel<Backend>,
        progress: &dyn Progress,
    ) -> anyhow::Result<Vec<Works>> {
        let text = self.workshop.generation.text(&self.workshop.eyes);
        let inference = &self.config.inference;
        let options = inference.options();
        let samples = visitors.iter().map(|visitor| &visitor.sample);
        let references = self.workshop.generation.references(
            &self.workshop.data,
            samples,
            inference.strength,
        )?;
        let visual = self.workshop.eyes.encoder();
        let chooser = chooser(inference, &visual, &self.workshop.ranking);
        let drawing = Drawing {
            generator: &self.workshop.generation.generator,
            text: &text,
            options: &options,
            references: references.as_ref(),
            latent_shape: self.workshop.generation.latent_shape,
            images_per_batch: inference.images_per_batch,
            choice: choice(inference, &chooser),
            seed: inference.seed,
            device: &self.workshop.devices.frozen,
        };
        let captions: Vec<String> = visitors
            .iter()
            .map(|visitor| {
                let sample = &visitor.sample;
                stable_diffusion::prompt(&self.items.captions[sample.reference], &sample.keywords)
            })
            .collect();
        progress.begin("drawing", 3 * visitors.len());
        let mut done = 0;
        let mut all = Vec::new();
        for (number, name) in ["Keywords", "Stable Diffusion", "RAGAR"]
            .into_iter()
            .enumerate()
        {
            let mut pictures = Vec::new();
            let mut embeddings = Vec::new();
            let mut each = |images: Tensor<Backend, 4>| {
                let embedded = self.workshop.eyes.encoder().encode(images.clone());
                let [count, width] = embedded.dims();
                let values: Vec<f32> = embedded.into_data().iter::<f32>().collect();
                embeddings.extend(values.chunks(width).map(<[f32]>::to_vec));
                pictures.extend(to_pictures(images));
                done += count;
                progress.advance(done, name);
            };
            for (chunk, visitors) in visitors.chunks(USERS_AT_ONCE).enumerate() {
                let samples: Vec<&Sample> =
                    visitors.iter().map(|visitor| &visitor.sample).collect();
                let prompts: Vec<&str> = match number {
                    0 => samples.iter().map(|s| s.global_prompt.as_str()).collect(),
                    _ => captions[chunk * USERS_AT_ONCE..]
                        .iter()
                        .take(samples.len())
                        .map(String::as_str)
                        .collect(),
                };
                let drawn = match number {
                    2 => drawing.personalised(model, &samples, &mut each),
                    _ => drawing.prompts(&samples, &prompts, &mut each),
                };
                drawn.context("inference.num_steps")?;
            }
            all.push(Works {
                name,
                judgements: self.judge(visitors, &embeddings),
                pictures,
                embeddings,
            });
        }
        progress.end();
        Ok(all)
    }

    /// Scores and ranks of one picture for each visitor, in the reference's place.
    fn judge(&self, visitors: &[Visitor<'_>], embeddings: &[Vec<f32>]) -> Vec<Judgement> {
        let Some(width) = embeddings.first().map(Vec::len) else {
            return Vec::new();
        };
        let cases: Vec<Case> = visitors
            .iter()
            .map(|visitor| Case {
                user: visitor.sample.user_index,
                reference: visitor.sample.reference,
            })
            .collect();
        let data = TensorData::new(embeddings.concat(), [cases.len(), width]);
        let features = Tensor::<Backend, 2>::from_data(data, &self.workshop.devices.frozen);
        self.workshop
            .ranking
            .discriminator
            .judge_all(&cases, features)
    }

    /// The report: scores of all methods, pictures of the first visitors, curves of the training in `folder`.
    ///
    /// # Errors
    /// When a picture of the data cannot be used.
    pub fn report(
        &self,
        visitors: &[Visitor<'_>],
        works: &[Works],
        folder: Option<&Path>,
        progress: &dyn Progress,
    ) -> anyhow::Result<ReportData> {
        let judged = scores::judge(self, visitors, works, progress)?;
        Ok(ReportData {
            title: "RAGAR: items re-drawn to their users' tastes".into(),
            introduction: match self.workshop.data.stickers() {
                Some(_) => "Stickers for users who like one art style for one group of things and another for another. \
                    The right answer, the reference's glyph in the style that this user likes for its group, exists \
                    and was kept from all training."
                    .into(),
                None => "Items of the users' histories, and the reference item as each method draws it.".into(),
            },
            facts: vec![
                Fact::new("Device", &self.workshop.devices.name),
                Fact::new("Users", visitors.len()),
                Fact::new("Drawings, one kept", self.config.inference.candidates),
                Fact::new("Data", self.config.data.folder.display()),
                Fact::new("Seed of training", self.config.training.seed),
                Fact::new("Seed of drawing", self.config.inference.seed),
            ],
            tables: scores::tables(self, visitors, works, &judged),
            charts: folder.map_or_else(Vec::new, charts),
            users: gallery::panels(self, visitors, works, &judged)?,
            configuration: self.config.to_toml(METHOD)?,
            ..Default::default()
        })
    }
}
