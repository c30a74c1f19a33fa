//! Rollouts: explore, draw, judge, reward (equations 11 to 14 of the method). No graph is recorded here.

use burn::tensor::backend::Backend;
use burn::tensor::{Device, Tensor};

use crate::generation::conditioning::TextEncoder;
use crate::generation::drawing::{Drawing, Latent};
use crate::generation::generator::Generator;
use crate::generation::noise::NoiseKey;
use crate::generation::references::ReferenceLatents;
use crate::generation::sample::{Sample, rows};
use crate::networks::scheduler::SchedulerError;

use crate::recommender::neighbours::host;

use super::clock::{Clock, Seconds};
use super::config::{Exploration, ReflectionConfig};
use super::discriminator::{Discriminator, VisualEncoder};
use super::exploration::{exploration_noise, noise_along, retrieved_directions};
use super::memory::Memory;
use super::reward::{Reward, reward};

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
    /// The references' pictures, where drawing begins with them (`strength` below 1).
    pub references: Option<&'a ReferenceLatents<B>>,
    /// Channels, height and width of a latent.
    pub latent_shape: [usize; 3],
    /// Where all of it lives.
    pub device: Device<B>,
}

/// What exploring came to.
#[derive(Debug)]
pub struct Rollout<B: Backend> {
    /// `z_i`, `[batch, n, Q, d]`.
    pub explored: Tensor<B, 4>,
    /// A row per sample, a reward per noise.
    pub rewards: Vec<Vec<Reward>>,
}

/// What the noise of a rollout depends on beside sample and place.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// Seed of the run.
    pub seed: u64,
    /// Training step.
    pub step: usize,
}

/// Draws `n` images around each sample's `E_gen` and lets the ranking model judge them in the reference's place.
///
/// # Shapes
/// `keyword` is `E_K`, `general` is `E_gen`, both `[batch, Q, d]`; `sigma` is `[1]`.
///
/// # Errors
/// When the generator's schedule refuses the number of denoising steps.
#[allow(clippy::too_many_arguments)]
pub fn rollout<B: Backend>(
    frozen: &Frozen<'_, B>,
    memory: &mut Memory,
    batch: &[&Sample],
    keyword: &Tensor<B, 3>,
    general: &Tensor<B, 3>,
    sigma: Tensor<B, 1>,
    config: &ReflectionConfig,
    moment: Moment,
    seconds: &mut Seconds,
) -> Result<Rollout<B>, SchedulerError> {
    // (11)
    let explored = explore(frozen, general, sigma, batch, config, moment);
    // (12) Each image is a conditioning and a latent. The keyword image is drawn once per sample and run.
    let mut conditionings = Vec::new();
    let mut latents = Vec::new();
    for (row, sample) in batch.iter().enumerate() {
        if memory.known(sample).is_none() {
            conditionings.push(keyword.clone().narrow(0, row, 1));
            latents.push(Latent::shared(sample));
        }
        let [_, noises, tokens, width] = explored.dims();
        let images = explored.clone().narrow(0, row, 1);
        conditionings.push(images.reshape([noises, tokens, width]));
        latents.extend((0..noises).map(|noise| match config.common_noise {
            true => Latent::shared(sample),
            false => Latent::own(sample, noise, moment.step),
        }));
    }
    let conditionings = Tensor::cat(conditionings, 0);
    let features = draw(
        frozen,
        &latents,
        conditionings,
        config,
        moment.seed,
        seconds,
    )?;
    // (13)–(14)
    let mut clock = Clock::<B>::start(&frozen.device);
    let rewards = judge(frozen, memory, batch, &features, config);
    seconds.judging += clock.lap();
    Ok(Rollout { explored, rewards })
}

/// `z_i = sg(E_gen) + σ ε_i`, `[batch, n, Q, d]`.
fn explore<B: Backend>(
    frozen: &Frozen<'_, B>,
    general: &Tensor<B, 3>,
    sigma: Tensor<B, 1>,
    batch: &[&Sample],
    config: &ReflectionConfig,
    moment: Moment,
) -> Tensor<B, 4> {
    let [_, tokens, width] = general.dims();
    let noise = batch
        .iter()
        .enumerate()
        .map(|(row, sample)| {
            let key = NoiseKey {
                seed: moment.seed,
                stream: "exploration",
                user: &sample.user,
                item: &sample.reference_id,
                noise: 0,
                step: moment.step,
            };
            if config.exploration == Exploration::Retrieved {
                let own = general.clone().narrow(0, row, 1);
                let directions = retrieved_directions(sample, own, frozen.text);
                return noise_along(key, config.num_noises, directions);
            }
            exploration_noise(
                key,
                config.exploration,
                config.num_noises,
                [tokens, width],
                &general.device(),
            )
        })
        .collect();
    let noise: Tensor<B, 4> = Tensor::stack(noise, 0);
    general.clone().unsqueeze_dim::<4>(1) + noise * sigma.reshape([1, 1, 1, 1])
}

/// Features of the images of `conditionings`, `[images, Q, d]`; no image leaves the device.
pub(super) fn draw<B: Backend>(
    frozen: &Frozen<'_, B>,
    latents: &[Latent<'_>],
    conditionings: Tensor<B, 3>,
    config: &ReflectionConfig,
    seed: u64,
    seconds: &mut Seconds,
) -> Result<Tensor<B, 2>, SchedulerError> {
    let drawing = Drawing {
        generator: frozen.generator,
        text: frozen.text,
        options: &config.options(),
        references: frozen.references,
        latent_shape: frozen.latent_shape,
        images_per_batch: config.images_per_batch,
        choice: None,
        seed,
        device: &frozen.device,
    };
    let mut features = Vec::new();
    let mut clock = Clock::<B>::start(&frozen.device);
    drawing.from_latents(latents, conditionings, |images| {
        seconds.drawing += clock.lap();
        features.push(frozen.visual.encode(images));
        seconds.encoding += clock.lap();
    })?;
    Ok(Tensor::cat(features, 0))
}

/// The reward of every explored image. `features` holds, sample after sample, those of the keyword image where it is
/// not known yet, then those of the explored ones.
fn judge<B: Backend>(
    frozen: &Frozen<'_, B>,
    memory: &mut Memory,
    batch: &[&Sample],
    features: &Tensor<B, 2>,
    config: &ReflectionConfig,
) -> Vec<Vec<Reward>> {
    let mut next = 0;
    let mut rewards = Vec::with_capacity(batch.len());
    // A user may stand twice in a small data set's batch: what is known was decided before any of it was drawn.
    let known: Vec<_> = batch.iter().map(|sample| memory.known(sample)).collect();
    for (sample, known) in batch.iter().zip(known) {
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
        let of = |judgement| reward(config.reward, judgement, reference, keyword, config.margin);
        let row: Vec<Reward> = judged.map(of).collect();
        rewards.push(match config.semantic_reward {
            0.0 => row,
            weight => {
                let explored = features.clone().narrow(0, next - row.len(), row.len());
                let caption = rows(&[*sample], |s| &s.reference_semantic, &frozen.device);
                let likeness = host((explored * caption).sum_dim(1));
                let row = row.into_iter().zip(likeness);
                row.map(|(reward, likeness)| reward.with_semantic(likeness, weight))
                    .collect()
            }
        });
    }
    rewards
}
