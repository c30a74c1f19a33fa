//! Everything that is measured of one picture.

use std::collections::HashMap;

use anyhow::Context as _;
use burn::tensor::{Tensor, TensorData};
use image::RgbImage;
use rayon::prelude::*;

use super::Comparison;
use crate::app::assembly::{StickerJudge, features};
use crate::app::backend::Backend;
use crate::app::exhibition::Visitor;
use crate::data::image::ImageError;
use crate::evaluation::frechet::{FeatureStatistics, frechet_distance};
use crate::evaluation::metric::{Metric, Scores};
use crate::evaluation::perceptual::{perceptual_distances, picture_similarity};
use crate::evaluation::ranking::rank_change;
use crate::evaluation::similarity::{Comparison as With, mean_cosine, similarities};
use crate::evaluation::truth::{Named, Truth};
use crate::features::inception::InceptionExtractor;
use crate::networks::inception::WIDTH;
use crate::networks::lpips::Lpips;
use crate::optimisation::Progress;
use crate::pretrained::{hub, inception, lpips};
use crate::reflection::discriminator::{Case, Discriminator as _};

/// Judges loaded and trained, and what they say of each user that no picture changes.
pub struct Judges<'a> {
    comparison: &'a Comparison,
    visitors: &'a [Visitor<'a>],
    lpips: Option<Lpips<Backend>>,
    inception: Option<InceptionExtractor<Backend>>,
    /// Of all pictures of the catalogue: CLIP's, and Inception's where there is one.
    catalogue: (FeatureStatistics, Option<FeatureStatistics>),
    truth: Option<(StickerJudge<'a>, Vec<Option<Truth>>)>,
    tastes: Vec<Vec<f32>>,
    texts: Vec<Vec<f32>>,
    /// Ranks of the references' own pictures.
    ranks: Option<Vec<usize>>,
}

/// What is said of a method's pictures together.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct SetScores {
    /// 100 · the Fréchet distance from the catalogue's pictures, in CLIP's space of unit vectors.
    pub clip_fid: Option<f64>,
    /// The same of Inception's features, not scaled.
    pub fid: Option<f64>,
}

fn statistics(features: &[Vec<f32>]) -> FeatureStatistics {
    let mut statistics = FeatureStatistics::new(features.first().map_or(0, Vec::len));
    features.iter().for_each(|feature| statistics.add(feature));
    statistics
}

/// FID's network, where the configuration names one.
fn inception(comparison: &Comparison) -> anyhow::Result<Option<InceptionExtractor<Backend>>> {
    let named = &comparison.config.evaluation.inception;
    if named.as_os_str().is_empty() {
        return Ok(None);
    }
    let device = &comparison.devices.frozen;
    let (network, fingerprint) = inception::open::<Backend>(&hub::located(named), device)
        .with_context(|| format!("evaluation.inception = \"{}\"", named.display()))?;
    Ok(Some(InceptionExtractor {
        network,
        fingerprint,
        device: device.clone(),
    }))
}

/// The features of a method's pictures so far.
#[derive(Debug, Clone)]
pub struct Tally {
    clip: FeatureStatistics,
    inception: FeatureStatistics,
}

/// A picture with its user.
#[derive(Clone, Copy)]
pub struct Shown<'a> {
    /// The user's place among the visitors.
    pub user: usize,
    /// The picture.
    pub picture: &'a RgbImage,
}

impl<'a> Judges<'a> {
    /// Judges of pictures for `visitors`.
    ///
    /// # Errors
    /// A network that cannot be loaded, a picture that cannot be used, labels that do not match.
    pub fn new(
        comparison: &'a Comparison,
        visitors: &'a [Visitor<'a>],
        progress: &dyn Progress,
    ) -> anyhow::Result<Self> {
        let named = &comparison.config.evaluation.lpips;
        let lpips = match named.as_os_str().is_empty() {
            true => None,
            false => {
                let opened = lpips::open(&hub::located(named), None, &comparison.devices.frozen);
                let key = || format!("evaluation.lpips = \"{}\"", named.display());
                Some(opened.with_context(key)?)
            }
        };
        let inception = inception(comparison)?;
        let of_catalogue = match &inception {
            Some(inception) => {
                let pictures = features::pictures(&comparison.data, &comparison.config)?;
                let batch_size = comparison.config.evaluation.batch_size;
                let store = features::store(&comparison.config);
                let all = inception.features(&pictures, batch_size, &store, progress)?;
                Some(statistics(&all))
            }
            None => None,
        };
        let semantic = comparison.eyes.semantic();
        let encode = |texts: Vec<&str>| -> Vec<Vec<f32>> {
            let batches = texts.chunks(comparison.config.features.batch_size.max(1));
            batches.flat_map(|batch| semantic.encode(batch)).collect()
        };
        let catalogue = &comparison.data.folder().catalogue;
        let mut judges = Self {
            comparison,
            visitors,
            lpips,
            inception,
            catalogue: (statistics(&comparison.items.visual), of_catalogue),
            truth: truth(comparison, visitors, progress)?,
            tastes: encode(visitors.iter().map(|v| v.sample.summary.as_str()).collect()),
            texts: encode(
                visitors
                    .iter()
                    .map(|v| catalogue[v.sample.reference].text.as_str())
                    .collect(),
            ),
            ranks: None,
        };
        let places: Vec<usize> = (0..visitors.len()).collect();
        let own: Vec<Vec<f32>> = visitors
            .iter()
            .map(|v| comparison.items.visual[v.sample.reference].clone())
            .collect();
        judges.ranks = judges.ranks_of(&places, &own);
        Ok(judges)
    }

    /// How style and glyph are named; empty where nobody knows the right answers.
    pub fn named_by(&self) -> String {
        let judge = self.truth.as_ref();
        judge.map_or_else(String::new, |(judge, _)| judge.method())
    }

    /// Embeddings of pictures, at length one.
    fn embed(&self, shown: &[Shown<'_>]) -> Vec<Vec<f32>> {
        let visual = self.comparison.eyes.visual();
        let batches = shown.chunks(self.comparison.config.features.batch_size.max(1));
        batches
            .flat_map(|batch| {
                let pictures: Vec<&RgbImage> = batch.iter().map(|shown| shown.picture).collect();
                visual.encode(&pictures)
            })
            .collect()
    }

    /// Ranks of pictures in their references' places, by their embeddings.
    fn ranks_of(&self, users: &[usize], embeddings: &[Vec<f32>]) -> Option<Vec<usize>> {
        let ranking = self.comparison.ranking.as_ref()?;
        let width = embeddings.first().map(Vec::len)?;
        let cases: Vec<Case> = users
            .iter()
            .map(|&user| Case {
                user: self.visitors[user].sample.user_index,
                reference: self.visitors[user].sample.reference,
            })
            .collect();
        let data = TensorData::new(embeddings.concat(), [cases.len(), width]);
        let features = Tensor::<Backend, 2>::from_data(data, &self.comparison.devices.frozen);
        let judged = ranking.discriminator.judge_all(&cases, features);
        Some(judged.into_iter().map(|judgement| judgement.rank).collect())
    }

    /// Of no picture.
    pub fn tally(&self) -> Tally {
        let first = self.comparison.items.visual.first();
        Tally {
            clip: FeatureStatistics::new(first.map_or(0, Vec::len)),
            inception: FeatureStatistics::new(match self.inception {
                Some(_) => WIDTH,
                None => 0,
            }),
        }
    }

    /// The scores of each picture; all are taken into `tally`.
    ///
    /// # Errors
    /// A picture of the data that cannot be used.
    pub fn judge(&self, shown: &[Shown<'_>], tally: &mut Tally) -> anyhow::Result<Vec<Scores>> {
        if shown.is_empty() {
            return Ok(Vec::new());
        }
        let embeddings = self.embed(shown);
        embeddings
            .iter()
            .for_each(|embedding| tally.clip.add(embedding));
        if let Some(inception) = &self.inception {
            let pictures: Vec<&RgbImage> = shown.iter().map(|shown| shown.picture).collect();
            let batch_size = self.comparison.config.evaluation.batch_size;
            let features = inception.encode(&pictures, batch_size);
            features
                .iter()
                .for_each(|feature| tally.inception.add(feature));
        }
        let users: Vec<usize> = shown.iter().map(|shown| shown.user).collect();
        let ranks = self.ranks_of(&users, &embeddings);
        let mut all: Vec<Scores> = shown
            .par_iter()
            .zip(&embeddings)
            .map(|(shown, embedding)| self.similar(shown.user, embedding))
            .collect();
        if let Some((judge, truths)) = &self.truth {
            let pictures: Vec<&RgbImage> = shown.iter().map(|shown| shown.picture).collect();
            let named = judge.name(&pictures, &embeddings);
            for ((scores, user), named) in all.iter_mut().zip(&users).zip(&named) {
                scores.extend(
                    truths[*user]
                        .map(|truth| truth_scores(named, truth))
                        .into_iter()
                        .flatten(),
                );
            }
        }
        if let (Some(drawn), Some(own)) = (&ranks, &self.ranks) {
            for ((scores, user), rank) in all.iter_mut().zip(&users).zip(drawn) {
                scores.insert(Metric::RankChange, rank_change(own[*user], *rank));
            }
        }
        // Users by the dozen, so that their histories' pictures need not all stand in memory.
        let at_once = self.comparison.config.inference.images_per_batch.max(1);
        for (shown, scores) in shown.chunks(at_once).zip(all.chunks_mut(at_once)) {
            self.compare(shown, scores)?;
        }
        Ok(all)
    }

    /// How far the pictures of `tally` together are from the catalogue's; one picture has no spread, and so no distance.
    pub fn sets(&self, tally: &Tally) -> SetScores {
        let (catalogue, of_inception) = &self.catalogue;
        let clip = frechet_distance(&tally.clip, catalogue).ok();
        let fid = of_inception.as_ref();
        SetScores {
            clip_fid: clip.map(|distance| 100.0 * distance),
            fid: fid.and_then(|catalogue| frechet_distance(&tally.inception, catalogue).ok()),
        }
    }

    /// What CLIP says.
    fn similar(&self, user: usize, embedding: &[f32]) -> Scores {
        let visitor = &self.visitors[user];
        let visual = &self.comparison.items.visual;
        let items = &visitor.history.history;
        let history: Vec<Vec<f32>> = items.iter().map(|item| visual[*item].clone()).collect();
        let found = similarities(
            embedding,
            &With {
                preference_text: &self.tastes[user],
                history_images: &history,
                reference_text: &self.texts[user],
                reference_image: &visual[visitor.sample.reference],
            },
        );
        let mut scores = Scores::from([
            (Metric::ReferenceText, found.reference_text),
            (Metric::ReferenceImage, found.reference_image),
        ]);
        // A user without words or pictures has no preference to be close to.
        if !visitor.sample.summary.is_empty() {
            scores.insert(Metric::PreferenceText, found.preference_text);
        }
        if !history.is_empty() {
            scores.insert(Metric::HistoryImages, found.history_images);
        }
        if let Some(target) = visitor.history.target {
            let target = std::slice::from_ref(&visual[target]);
            scores.insert(Metric::TargetImage, mean_cosine(embedding, target));
        }
        scores
    }

    /// Pictures against pictures: structure, and perceptual distance where there is a network.
    fn compare(&self, shown: &[Shown<'_>], scores: &mut [Scores]) -> anyhow::Result<()> {
        let wanted: Vec<usize> = shown
            .iter()
            .flat_map(|shown| {
                let history = self.visitors[shown.user].history;
                let items = history.history.iter().chain(&history.target);
                items.copied().chain([history.reference])
            })
            .collect();
        let pictures: HashMap<usize, RgbImage> = wanted
            .par_iter()
            .map(|item| Ok((*item, self.comparison.data.picture(*item)?)))
            .collect::<Result<_, ImageError>>()?;

        let mut pairs: Vec<(usize, Metric, &RgbImage)> = Vec::new();
        for (place, shown) in shown.iter().enumerate() {
            let history = self.visitors[shown.user].history;
            let of = |item: &usize| &pictures[item];
            pairs.push((place, Metric::ReferenceStructure, of(&history.reference)));
            if let Some(target) = &history.target {
                pairs.push((place, Metric::TargetStructure, of(target)));
            }
            let liked = history.history.iter();
            pairs.extend(liked.map(|item| (place, Metric::HistoryStructure, of(item))));
        }
        let similar: Vec<Option<f64>> = pairs
            .par_iter()
            .map(|(place, _, other)| picture_similarity(shown[*place].picture, other).ok())
            .collect();
        add_means(&pairs, &similar, scores, |metric| metric);

        let Some(network) = &self.lpips else {
            return Ok(());
        };
        let both: Vec<(&RgbImage, &RgbImage)> = pairs
            .iter()
            .map(|(place, _, other)| (shown[*place].picture, *other))
            .collect();
        let batch_size = self.comparison.config.evaluation.batch_size;
        let device = &self.comparison.devices.frozen;
        let apart: Vec<Option<f64>> = perceptual_distances(network, &both, batch_size, device)
            .into_iter()
            .map(Result::ok)
            .collect();
        add_means(&pairs, &apart, scores, |metric| match metric {
            Metric::ReferenceStructure => Metric::ReferenceDistance,
            Metric::TargetStructure => Metric::TargetDistance,
            _ => Metric::HistoryDistance,
        });
        Ok(())
    }
}

/// Adds 100 · the mean of each picture's values; a picture one of whose values is missing has none.
fn add_means(
    pairs: &[(usize, Metric, &RgbImage)],
    values: &[Option<f64>],
    scores: &mut [Scores],
    named: impl Fn(Metric) -> Metric,
) {
    let mut sums: HashMap<(usize, Metric), (f64, usize, bool)> = HashMap::new();
    for ((place, metric, _), value) in pairs.iter().zip(values) {
        let (sum, count, whole) = sums.entry((*place, *metric)).or_insert((0.0, 0, true));
        match value {
            Some(value) => *sum += value,
            None => *whole = false,
        }
        *count += 1;
    }
    for ((place, metric), (sum, count, whole)) in sums {
        if whole {
            scores[place].insert(named(metric), 100.0 * sum / count as f64);
        }
    }
}

/// What the judge of style and glyph says of one picture.
fn truth_scores(named: &Named, truth: Truth) -> [(Metric, f64); 4] {
    let verdict = named.verdict(truth);
    let share = |right: bool| f64::from(u8::from(right));
    [
        (Metric::Style, share(verdict.style)),
        (Metric::Glyph, share(verdict.glyph)),
        (Metric::GlyphInFive, share(verdict.glyph_in_five)),
        (Metric::Both, share(verdict.both)),
    ]
}

/// The judge of style and glyph, and what each visitor's target shows, where the data know.
fn truth<'a>(
    comparison: &'a Comparison,
    visitors: &[Visitor<'_>],
    progress: &dyn Progress,
) -> anyhow::Result<Option<(StickerJudge<'a>, Vec<Option<Truth>>)>> {
    let judge = StickerJudge::open(
        &comparison.config,
        &comparison.data,
        &comparison.items.visual,
        &comparison.devices.frozen,
        progress,
    )?;
    Ok(judge.map(|judge| {
        let targets = visitors.iter().map(|v| v.history.target);
        let truths = targets
            .map(|target| target.map(|item| judge.shows(item)))
            .collect();
        (judge, truths)
    }))
}
