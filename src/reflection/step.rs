//! One training step of RAGAR, the equations of the paper in order.

use std::collections::BTreeMap;

use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::generation::calibrator::{Pool, pool_end, pool_mean};
use crate::generation::conditioning::{Conditioning, TextEncoder};
use crate::generation::drawing::Drawing;
use crate::generation::generator::{GenerateOptions, Generator};
use crate::generation::noise::NoiseKey;
use crate::generation::preference::{Preference, PreferenceModel};
use crate::generation::sample::Sample;
use crate::networks::scheduler::SchedulerError;

use super::config::ReflectionConfig;
use super::discriminator::{Discriminator, VisualEncoder};
use super::exploration::exploration_noise;
use super::losses;
use super::reward::{Judgement, Reward, RunningDeviation, advantages, reward};

/// Everything that is frozen while the preference model trains.
pub struct Frozen<'a, B: Backend> {
    /// Prompts to conditionings.
    pub text: &'a dyn TextEncoder<B>,
    /// Conditionings to images.
    pub generator: &'a Generator<B>,
    /// Images to features.
    pub visual: &'a dyn VisualEncoder<B>,
    /// Features to scores and ranks.
    pub discriminator: &'a dyn Discriminator<B>,
    /// Channels, height and width of a latent.
    pub latent_shape: [usize; 3],
    /// Where all of it lives.
    pub device: Device<B>,
}

/// What outlives a step.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Memory {
    /// Judgements of reference and keyword image by user, then reference: they never change.
    judged: BTreeMap<String, BTreeMap<usize, [Judgement; 2]>>,
    /// Scale of the advantages.
    pub deviation: RunningDeviation,
}

impl Memory {
    fn known(&self, sample: &Sample) -> Option<[Judgement; 2]> {
        let references = self.judged.get(&sample.user)?;
        references.get(&sample.reference).copied()
    }

    fn learn(&mut self, sample: &Sample, judged: [Judgement; 2]) {
        let references = self.judged.entry(sample.user.clone()).or_default();
        references.insert(sample.reference, judged);
    }
}

/// The losses of one step, as numbers.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Parts {
    /// `L`.
    pub loss: f32,
    /// `L_rank`, before its weight.
    pub rank: f32,
    /// `L_cal`, before its weight.
    pub calibration: f32,
    /// `L_sem`, before its weight.
    pub semantic: f32,
    /// Mean reward of the explored images.
    pub reward: f32,
    /// Mean score of the explored images.
    pub score_personalised: f32,
    /// Mean score of the references.
    pub score_reference: f32,
    /// Mean score of the keyword images.
    pub score_keyword: f32,
    /// Mean rank of the explored images.
    pub rank_personalised: f32,
    /// Mean rank of the references.
    pub rank_reference: f32,
    /// Deviation of the advantages before they were normalised.
    pub advantage_deviation: f32,
    /// Mean length of a token of `E_gen`: leaving that of real prompts is an alarm.
    pub conditioning_norm: f32,
}

/// A step's loss with its graph, and the numbers behind it.
pub struct Step<B: AutodiffBackend> {
    /// `L`, `[1]`.
    pub loss: Tensor<B, 1>,
    /// Its parts.
    pub parts: Parts,
    /// A row per sample, a reward per noise.
    pub rewards: Vec<Vec<Reward>>,
}

/// What a step is taken with.
#[derive(Debug, Clone, Copy)]
pub struct Settings<'a> {
    /// Of the reflection module.
    pub reflection: &'a ReflectionConfig,
    /// From `E_gen` to the vector of `L_cal`.
    pub pool: Pool,
    /// Of all noise.
    pub seed: u64,
}

/// Training step `number` over `batch`; equation numbers are those of `docs/method.md`.
///
/// # Errors
/// When the generator's schedule refuses the number of denoising steps.
pub fn step<B: AutodiffBackend>(
    model: &PreferenceModel<B>,
    frozen: &Frozen<'_, B::InnerBackend>,
    memory: &mut Memory,
    batch: &[&Sample],
    settings: Settings<'_>,
    number: usize,
) -> Result<Step<B>, SchedulerError> {
    let Settings {
        reflection: config,
        pool,
        seed,
    } = settings;

    // (9) "Global": the generator's own reading of the keywords and the reference's words.
    let prompts: Vec<&str> = batch.iter().map(|s| s.global_prompt.as_str()).collect();
    let keyword = frozen.text.encode(&prompts);

    // (7)–(9) The language model's preference, mapped and fused.
    let ids: Vec<Vec<u32>> = batch.iter().map(|s| s.preference_ids.clone()).collect();
    let Preference {
        multimodal,
        padding,
        general,
    } = model.forward(&ids, Tensor::from_inner(keyword.states.clone()));

    // (10) Balance Calibrator: the conditioning stays near what retrieval found.
    let pooled = pooled_general(general.clone(), &keyword, frozen.text, pool);
    let retrieved = rows(batch, |s| &s.retrieved_preference, &frozen.device);
    let calibration = losses::calibration(pooled, Tensor::from_inner(retrieved), config.distance);

    // (16) The multimodal preference stays near the reference's meaning.
    let reference = rows(batch, |s| &s.reference_semantic, &frozen.device);
    let semantic = losses::semantic(
        pool_mean(multimodal, padding),
        Tensor::from_inner(reference),
        config.distance,
    );

    // (11)–(15) Explore, draw, judge, reward.
    let detached = general.clone().inner();
    let explored = explore(&detached, batch, config, seed, number);
    let rewards = judge(frozen, memory, batch, &keyword.states, &explored, settings)?;
    let values: Vec<Vec<f32>> = rewards
        .iter()
        .map(|row| row.iter().map(|reward| reward.value).collect())
        .collect();
    let mut advantages = advantages(&values, config.baseline);
    let advantage_deviation = deviation(advantages.iter().flatten().copied());
    if config.normalise_advantages {
        advantages = memory.deviation.normalise(advantages);
    }
    let rank = if config.num_noises == 0 {
        Tensor::zeros([1], &general.device())
    } else {
        let shape = [batch.len(), config.num_noises];
        let flat: Vec<f32> = advantages.into_iter().flatten().collect();
        let advantages = Tensor::from_data(TensorData::new(flat, shape), &frozen.device);
        losses::rank(general, explored, advantages, config.sigma)
    };

    // (17) The whole.
    let loss = rank.clone().mul_scalar(config.rank_weight)
        + calibration.clone().mul_scalar(config.calibration_weight)
        + semantic.clone().mul_scalar(config.semantic_weight);
    let all = || rewards.iter().flatten();
    let parts = Parts {
        loss: number_of(loss.clone()),
        rank: number_of(rank),
        calibration: number_of(calibration),
        semantic: number_of(semantic),
        reward: mean(all().map(|r| r.value)),
        score_personalised: mean(all().map(|r| r.personalised.score)),
        score_reference: mean(all().map(|r| r.reference.score)),
        score_keyword: mean(all().map(|r| r.keyword.score)),
        rank_personalised: mean(all().map(|r| r.personalised.rank as f32)),
        rank_reference: mean(all().map(|r| r.reference.rank as f32)),
        advantage_deviation,
        conditioning_norm: conditioning_norm(detached),
    };
    Ok(Step {
        loss,
        parts,
        rewards,
    })
}

/// `pool(E_gen)`, `[batch, d]`.
fn pooled_general<B: AutodiffBackend>(
    general: Tensor<B, 3>,
    keyword: &Conditioning<B::InnerBackend>,
    text: &dyn TextEncoder<B::InnerBackend>,
    pool: Pool,
) -> Tensor<B, 2> {
    match (pool, text.projection()) {
        (Pool::Eos, Some(projection)) => pool_end(
            general,
            Tensor::from_inner(keyword.ends.clone()),
            Tensor::from_inner(projection),
        ),
        _ => pool_mean(general, Tensor::from_inner(keyword.padding.clone())),
    }
}

/// `z_i = sg(E_gen) + σ ε_i`, `[batch, n, Q, d]`.
fn explore<B: Backend>(
    general: &Tensor<B, 3>,
    batch: &[&Sample],
    config: &ReflectionConfig,
    seed: u64,
    number: usize,
) -> Tensor<B, 4> {
    let [_, tokens, width] = general.dims();
    let noise = batch
        .iter()
        .map(|sample| {
            let key = NoiseKey {
                seed,
                stream: "exploration",
                user: &sample.user,
                item: &sample.reference_id,
                noise: 0,
                step: number,
            };
            exploration_noise(
                key,
                config.num_noises.max(1),
                [tokens, width],
                &general.device(),
            )
        })
        .collect();
    let noise: Tensor<B, 4> = Tensor::stack(noise, 0);
    general.clone().unsqueeze_dim::<4>(1) + noise.mul_scalar(config.sigma)
}

/// Draws every image of the batch in one go and lets the ranking model judge it in the reference's place.
fn judge<B: Backend>(
    frozen: &Frozen<'_, B>,
    memory: &mut Memory,
    batch: &[&Sample],
    keyword: &Tensor<B, 3>,
    explored: &Tensor<B, 4>,
    settings: Settings<'_>,
) -> Result<Vec<Vec<Reward>>, SchedulerError> {
    let config = settings.reflection;
    if config.num_noises == 0 {
        return Ok(vec![Vec::new(); batch.len()]);
    }
    // Each image is a conditioning and the latent that its sample shares.
    let mut conditionings = Vec::new();
    let mut owners = Vec::new();
    for (row, sample) in batch.iter().enumerate() {
        if memory.known(sample).is_none() {
            conditionings.push(keyword.clone().narrow(0, row, 1));
            owners.push(row);
        }
        let [_, noises, tokens, width] = explored.dims();
        let images = explored.clone().narrow(0, row, 1);
        conditionings.push(images.reshape([noises, tokens, width]));
        owners.extend(std::iter::repeat_n(row, noises));
    }
    let conditionings = Tensor::cat(conditionings, 0);
    let features = draw(frozen, batch, &owners, conditionings, settings)?;

    let mut next = 0;
    let rewards = batch
        .iter()
        .map(|sample| {
            let known = memory.known(sample);
            let count = config.num_noises + usize::from(known.is_none());
            let mut candidates = features.clone().narrow(0, next, count);
            next += count;
            if known.is_none() {
                let own = rows(&[*sample], |s| &s.reference_visual, &frozen.device);
                candidates = Tensor::cat(vec![own, candidates], 0);
            }
            let mut judged = frozen
                .discriminator
                .judge(sample.user_index, sample.reference, candidates)
                .into_iter();
            let [reference, keyword] = known.unwrap_or_else(|| {
                let first = judged.next().expect("a judgement of the reference");
                let second = judged.next().expect("a judgement of the keyword image");
                memory.learn(sample, [first, second]);
                [first, second]
            });
            judged
                .map(|judgement| {
                    reward(config.reward, judgement, reference, keyword, config.margin)
                })
                .collect()
        })
        .collect();
    Ok(rewards)
}

/// Features of the images of `conditionings`, `[images, Q, d]`; image `i` belongs to sample `owners[i]`.
fn draw<B: Backend>(
    frozen: &Frozen<'_, B>,
    batch: &[&Sample],
    owners: &[usize],
    conditionings: Tensor<B, 3>,
    settings: Settings<'_>,
) -> Result<Tensor<B, 2>, SchedulerError> {
    let config = settings.reflection;
    let drawing = Drawing {
        generator: frozen.generator,
        text: frozen.text,
        options: &GenerateOptions {
            num_steps: config.num_steps,
            guidance_scale: config.guidance_scale,
            scheduler: config.scheduler,
        },
        latent_shape: frozen.latent_shape,
        images_per_batch: config.images_per_batch,
        seed: settings.seed,
        device: &frozen.device,
    };
    let samples: Vec<&Sample> = owners.iter().map(|row| batch[*row]).collect();
    let mut features = Vec::new();
    drawing.conditionings(&samples, conditionings, |images| {
        features.push(frozen.visual.encode(images));
    })?;
    Ok(Tensor::cat(features, 0))
}

/// One vector of each sample, `[batch, d]`.
fn rows<B: Backend>(
    batch: &[&Sample],
    vector: impl Fn(&Sample) -> &Vec<f32>,
    device: &Device<B>,
) -> Tensor<B, 2> {
    let width = batch.first().map_or(0, |sample| vector(sample).len());
    let values: Vec<f32> = batch
        .iter()
        .flat_map(|s| vector(s).iter().copied())
        .collect();
    Tensor::from_data(TensorData::new(values, [batch.len(), width]), device)
}

fn number_of<B: Backend>(tensor: Tensor<B, 1>) -> f32 {
    tensor.into_data().iter::<f32>().next().unwrap_or(f32::NAN)
}

fn conditioning_norm<B: Backend>(general: Tensor<B, 3>) -> f32 {
    number_of(general.powi_scalar(2).sum_dim(2).sqrt().mean())
}

fn mean(values: impl Iterator<Item = f32>) -> f32 {
    let (sum, count) = values.fold((0.0, 0), |(sum, count), value| (sum + value, count + 1));
    if count == 0 { 0.0 } else { sum / count as f32 }
}

fn deviation(values: impl Iterator<Item = f32> + Clone) -> f32 {
    let centre = mean(values.clone());
    mean(values.map(|value| (value - centre).powi(2))).sqrt()
}
