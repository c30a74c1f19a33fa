//! Drawing for held-out users while the preference model trains.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use burn::tensor::{Tensor, TensorData};
use image::RgbImage;

use super::Visitor;
use crate::app::assembly::choice::{choice, chooser};
use crate::app::assembly::{StickerJudge, Workshop};
use crate::app::backend::Backend;
use crate::app::config::{InferenceConfig, RunConfig};
use crate::app::files;
use crate::app::pictures::png;
use crate::data::pixels::to_pictures;
use crate::evaluation::interval::bootstrap;
use crate::evaluation::ranking::rank_change;
use crate::evaluation::similarity::cosine;
use crate::evaluation::truth::{Truth, Verdict};
use crate::generation::drawing::Drawing;
use crate::generation::preference::PreferenceModel;
use crate::generation::sample::Sample;
use crate::optimisation::Progress;
use crate::preparation::ItemFeatures;
use crate::reflection::discriminator::{Case, Discriminator as _, VisualEncoder as _};
use crate::reflection::reward::{Judgement, reward};
use crate::training::preference::{EncodedPicture, Validation, Validator};

/// Scores by name, a value per visitor.
pub type Columns = BTreeMap<String, Vec<f64>>;

/// Held-out users, drawn for as test users will be: the same sampler, steps and noise.
pub struct HeldOut<'a> {
    config: &'a RunConfig,
    workshop: &'a Workshop,
    visitors: Vec<Visitor<'a>>,
    references: Vec<Judgement>,
    keywords: Vec<Judgement>,
    /// Style and glyph, where the truth is known.
    truth: Option<(StickerJudge<'a>, Vec<Truth>)>,
    folder: PathBuf,
}

impl<'a> HeldOut<'a> {
    /// Judges references and keyword images of `visitors`, and keeps pictures of the first `training.validation.pictures`
    /// in `folder`.
    ///
    /// # Errors
    /// When the schedule refuses `inference.num_steps`, or a file cannot be written.
    pub fn new(
        config: &'a RunConfig,
        workshop: &'a Workshop,
        items: &'a ItemFeatures,
        visitors: Vec<Visitor<'a>>,
        folder: &Path,
        progress: &dyn Progress,
    ) -> anyhow::Result<Self> {
        let truth = truth(config, workshop, items, &visitors, progress)?;
        let mut held_out = Self {
            config,
            workshop,
            visitors,
            references: Vec::new(),
            keywords: Vec::new(),
            truth,
            folder: folder.to_path_buf(),
        };
        progress.begin("validation", 1);
        let own: Vec<Vec<f32>> = held_out
            .samples()
            .iter()
            .map(|sample| sample.reference_visual.clone())
            .collect();
        held_out.references = held_out.judge(&own);
        let own = held_out.samples();
        let prompts = |drawing: &Drawing<'_, Backend>,
                       samples: &[&Sample],
                       each: &mut dyn FnMut(Tensor<Backend, 4>)| {
            let prompts: Vec<&str> = samples.iter().map(|s| s.global_prompt.as_str()).collect();
            // The keyword image of the reward is one drawing, in training and here.
            let single = Drawing {
                choice: None,
                ..*drawing
            };
            single.prompts(samples, &prompts, each)
        };
        let (pictures, embeddings) = held_out.drawn(&config.inference, &own, prompts)?;
        held_out.keywords = held_out.judge(&embeddings);
        held_out.keep("keyword", &pictures)?;
        let references: Result<Vec<RgbImage>, _> = held_out
            .samples()
            .iter()
            .take(config.training.validation.pictures)
            .map(|sample| workshop.data.picture(sample.reference))
            .collect();
        held_out.keep("reference", &references?)?;
        progress.end();
        Ok(held_out)
    }

    /// Pictures and their embeddings, one per visitor.
    fn drawn(
        &self,
        inference: &InferenceConfig,
        samples: &[&Sample],
        draw: impl Fn(
            &Drawing<'_, Backend>,
            &[&Sample],
            &mut dyn FnMut(Tensor<Backend, 4>),
        ) -> Result<(), crate::networks::scheduler::SchedulerError>,
    ) -> anyhow::Result<(Vec<RgbImage>, Vec<Vec<f32>>)> {
        let text = self.workshop.generation.text(&self.workshop.eyes);
        let options = inference.options();
        let references = self.workshop.generation.references(
            &self.workshop.data,
            samples.iter().copied(),
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
        let (mut pictures, mut embeddings) = (Vec::new(), Vec::new());
        draw(&drawing, samples, &mut |images| {
            let embedded = self.workshop.eyes.encoder().encode(images.clone());
            let [_, width] = embedded.dims();
            let values: Vec<f32> = embedded.into_data().iter::<f32>().collect();
            embeddings.extend(values.chunks(width).map(<[f32]>::to_vec));
            pictures.extend(to_pictures(images));
        })
        .context("inference.num_steps")?;
        Ok((pictures, embeddings))
    }

    fn judge(&self, embeddings: &[Vec<f32>]) -> Vec<Judgement> {
        let Some(width) = embeddings.first().map(Vec::len) else {
            return Vec::new();
        };
        let cases: Vec<Case> = self
            .samples()
            .iter()
            .map(|sample| Case {
                user: sample.user_index,
                reference: sample.reference,
            })
            .collect();
        let data = TensorData::new(embeddings.concat(), [cases.len(), width]);
        let features = Tensor::<Backend, 2>::from_data(data, &self.workshop.devices.frozen);
        self.workshop
            .ranking
            .discriminator
            .judge_all(&cases, features)
    }

    /// Writes the first visitors' pictures to `<name>/<user>.png`.
    fn keep(&self, name: &str, pictures: &[RgbImage]) -> anyhow::Result<Vec<EncodedPicture>> {
        let count = self.config.training.validation.pictures;
        let mut kept = Vec::new();
        for (visitor, picture) in self.visitors.iter().zip(pictures).take(count) {
            let user = &visitor.sample.user;
            let png = png(picture)?;
            files::write(&self.folder.join(name).join(file_name(user)), &png)?;
            kept.push(EncodedPicture {
                name: user.clone(),
                png,
                width: picture.width(),
                height: picture.height(),
            });
        }
        Ok(kept)
    }

    /// Scores of `model`'s drawings by name, a value per visitor; pictures of the first are kept under `name`. `samples`
    /// are the visitors', prepared in whatever way, drawn for as `inference` says; references and keyword images stay what they are.
    ///
    /// # Errors
    /// When the schedule refuses `inference.num_steps`, or a picture cannot be written.
    pub fn measure(
        &self,
        model: &PreferenceModel<Backend>,
        samples: &[&Sample],
        inference: &InferenceConfig,
        name: &str,
    ) -> anyhow::Result<(Columns, Vec<EncodedPicture>)> {
        let draw = |drawing: &Drawing<'_, Backend>,
                    samples: &[&Sample],
                    each: &mut dyn FnMut(Tensor<Backend, 4>)| {
            drawing.personalised(model, samples, each)
        };
        let (pictures, embeddings) = self.drawn(inference, samples, draw)?;
        let kept = self.keep(name, &pictures)?;
        Ok((self.columns(&pictures, &embeddings), kept))
    }

    /// The visitors' samples as they came.
    pub fn samples(&self) -> Vec<&Sample> {
        self.visitors
            .iter()
            .map(|visitor| &visitor.sample)
            .collect()
    }

    fn columns(&self, pictures: &[RgbImage], embeddings: &[Vec<f32>]) -> Columns {
        let judged = self.judge(embeddings);
        let reflection = &self.config.reflection;
        let each = judged.iter().zip(&self.references).zip(&self.keywords);
        let (mut changes, mut rewards) = (Vec::new(), Vec::new());
        for ((own, reference), keyword) in each {
            changes.push(rank_change(reference.rank, own.rank));
            let reward = reward(
                reflection.reward,
                *own,
                *reference,
                *keyword,
                reflection.margin,
            );
            rewards.push(f64::from(reward.value));
        }
        let similarities = embeddings
            .iter()
            .zip(self.samples())
            .map(|(own, sample)| 100.0 * cosine(own, &sample.reference_visual))
            .collect();
        let mut columns = vec![
            ("rank_change", changes),
            ("reward", rewards),
            ("image_similarity", similarities),
        ];
        if let Some((judge, truths)) = &self.truth {
            let pictures: Vec<&RgbImage> = pictures.iter().collect();
            let named = judge.name(&pictures, embeddings);
            let verdicts: Vec<Verdict> = named
                .iter()
                .zip(truths)
                .map(|(named, truth)| named.verdict(*truth))
                .collect();
            let share = |right: fn(&Verdict) -> bool| {
                verdicts
                    .iter()
                    .map(|v| f64::from(u8::from(right(v))))
                    .collect()
            };
            columns.push(("style@1", share(|v| v.style)));
            columns.push(("glyph@1", share(|v| v.glyph)));
            columns.push(("both@1", share(|v| v.both)));
        }
        let named = columns.into_iter();
        named
            .map(|(name, values)| (name.to_string(), values))
            .collect()
    }
}

impl Validator<Backend> for HeldOut<'_> {
    fn validate(
        &self,
        model: &PreferenceModel<Backend>,
        step: usize,
    ) -> Result<Validation, String> {
        let name = format!("step-{step:06}");
        let measured = self.measure(model, &self.samples(), &self.config.inference, &name);
        let (columns, pictures) = measured.map_err(|error| format!("{error:#}"))?;
        let mut scores = BTreeMap::new();
        for (name, values) in columns {
            let interval = bootstrap(&values, &self.config.evaluation.intervals);
            scores.insert(format!("{name}_low"), interval.low);
            scores.insert(format!("{name}_high"), interval.high);
            scores.insert(name, interval.mean);
        }
        Ok(Validation { scores, pictures })
    }
}

/// The judge of style and glyph with each visitor's right answer, where all have one.
fn truth<'a>(
    config: &RunConfig,
    workshop: &'a Workshop,
    items: &'a ItemFeatures,
    visitors: &[Visitor<'_>],
    progress: &dyn Progress,
) -> anyhow::Result<Option<(StickerJudge<'a>, Vec<Truth>)>> {
    let targets = visitors.iter().map(|visitor| visitor.history.target);
    let Some(targets) = targets.collect::<Option<Vec<usize>>>() else {
        return Ok(None);
    };
    let (data, frozen) = (&workshop.data, &workshop.devices.frozen);
    let judge = StickerJudge::open(config, data, &items.visual, frozen, progress)?;
    Ok(judge.map(|judge| {
        let truths = targets.iter().map(|target| judge.shows(*target)).collect();
        (judge, truths)
    }))
}

/// A user's id as a file's name: ids are anything, file names are not.
fn file_name(user: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    match !user.is_empty() && user.len() <= 64 && user.chars().all(plain) {
        true => format!("{user}.png"),
        false => {
            use sha2::{Digest as _, Sha256};
            let digest = Sha256::digest(user.as_bytes());
            format!("user-{digest:.16x}.png")
        }
    }
}
