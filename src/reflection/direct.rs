//! The reward's own gradient (ours; after ReFL, Xu et al., 2023, and DRaFT, Clark et al., 2024): back through the judge,
//! the visual encoder, the decoder and the last denoising steps to the conditioning.
//!
//! The policy gradient learns from rewards alone and needs a great many images to tell which of thousands of
//! directions was the good one; this asks each network for it. It needs networks that can be differentiated, and the
//! memory of their activations.

use burn::tensor::Tensor;
use burn::tensor::backend::{AutodiffBackend, Backend};

use crate::generation::drawing::Latent;
use crate::generation::generator::{Generator, Start};
use crate::generation::sample::{Sample, rows};
use crate::networks::scheduler::SchedulerError;
use crate::recommender::neighbours::host;

use super::clock::{Clock, Seconds};
use super::config::ReflectionConfig;
use super::discriminator::{Case, VisualEncoder};
use super::memory::Memory;
use super::reward::{Judgement, Reward, reward, slope};
use super::rollout::{Frozen, Moment, draw};

/// The frozen networks once more, where a graph is recorded.
pub struct Differentiable<'a, B: AutodiffBackend> {
    /// Conditionings to images.
    pub generator: Generator<B>,
    /// Images to features.
    pub visual: &'a dyn VisualEncoder<B>,
}

/// What one image per sample came to.
pub struct Direct<B: Backend> {
    /// `∂R/∂E_gen`, `[batch, Q, d]`.
    pub gradient: Tensor<B, 3>,
    /// A row of one reward per sample.
    pub rewards: Vec<Vec<Reward>>,
}

/// Draws `generator(E_gen)` for each sample with a graph and follows the reward back.
///
/// # Shapes
/// `keyword` is `E_K`, `general` is `E_gen`, both `[batch, Q, d]`.
///
/// # Errors
/// When the generator's schedule refuses the number of denoising steps.
#[allow(clippy::too_many_arguments)]
pub fn direct<B: AutodiffBackend>(
    frozen: &Frozen<'_, B::InnerBackend>,
    differentiable: &Differentiable<'_, B>,
    memory: &mut Memory,
    batch: &[&Sample],
    keyword: &Tensor<B::InnerBackend, 3>,
    general: &Tensor<B::InnerBackend, 3>,
    config: &ReflectionConfig,
    moment: Moment,
    seconds: &mut Seconds,
) -> Result<Direct<B::InnerBackend>, SchedulerError> {
    let known = compared(frozen, memory, batch, keyword, config, moment, seconds)?;
    let options = config.options();
    let (shape, device, seed) = (frozen.latent_shape, &frozen.device, moment.seed);
    let empty = frozen.text.encode(&[""]).states;
    let mut gradients = Vec::new();
    let mut rewards = Vec::with_capacity(batch.len());
    let mut clock = Clock::<B::InnerBackend>::start(device);
    for (index, samples) in batch.chunks(config.images_per_batch.max(1)).enumerate() {
        let start = index * config.images_per_batch.max(1);
        let latents: Vec<Latent<'_>> = samples
            .iter()
            .map(|sample| match config.common_noise {
                true => Latent::shared(sample),
                false => Latent::own(sample, 0, moment.step),
            })
            .collect();
        let initial = latents.iter().map(|l| l.initial(seed, shape, device));
        // (12) with a graph.
        let conditioning = general.clone().narrow(0, start, samples.len());
        let conditioning = Tensor::<B, 3>::from_inner(conditioning).require_grad();
        let images = differentiable.generator.generate_tracked(
            frozen.generator,
            conditioning.clone(),
            empty.clone(),
            Start {
                noise: Tensor::cat(initial.collect(), 0),
                pictures: frozen.references.and_then(|found| found.of(samples)),
            },
            &|index| {
                let noise = latents.iter();
                let noise = noise.map(|latent| latent.sampling(seed, index, shape, device));
                Tensor::cat(noise.collect(), 0)
            },
            &options,
            config.direct_calls,
        )?;
        seconds.drawing += clock.lap();
        let features = differentiable.visual.encode(images);
        seconds.encoding += clock.lap();

        // (13)–(14), and how the reward would change with the features.
        let cases: Vec<Case> = samples.iter().map(|sample| case(sample)).collect();
        let judged = frozen
            .discriminator
            .judge_all(&cases, features.clone().inner());
        let slopes = frozen
            .discriminator
            .score_gradient(&cases, features.clone().inner());
        let places = known[start..].iter().zip(judged);
        let judged: Vec<Reward> = places
            .map(|(&[own, keyword], image)| {
                reward(config.reward, image, own, keyword, config.margin)
            })
            .collect();
        let factors: Vec<f32> = judged.iter().map(|r| slope(config.reward, r)).collect();
        let factors = Tensor::<B::InnerBackend, 1>::from_data(factors.as_slice(), device);
        let slopes = slopes * factors.reshape([samples.len(), 1]);
        let (judged, slopes) = match config.semantic_reward {
            0.0 => (judged, slopes),
            weight => {
                let captions = rows(samples, |s| &s.reference_semantic, device);
                let likeness = host((features.clone().inner() * captions.clone()).sum_dim(1));
                let judged = judged.into_iter().zip(likeness);
                let judged =
                    judged.map(|(reward, likeness)| reward.with_semantic(likeness, weight));
                (judged.collect(), slopes + captions.mul_scalar(weight))
            }
        };
        rewards.extend(judged.into_iter().map(|reward| vec![reward]));
        seconds.judging += clock.lap();

        let mut graph = (features * Tensor::from_inner(slopes)).sum().backward();
        let gradient = conditioning.grad_remove(&mut graph);
        gradients.push(gradient.unwrap_or_else(|| conditioning.inner().zeros_like()));
        seconds.drawing += clock.lap();
    }
    Ok(Direct {
        gradient: Tensor::cat(gradients, 0),
        rewards,
    })
}

/// The gradients as unit lengths on the average over the run, `[batch, Q, d]`, and the deviation that they had.
pub fn normalised<B: Backend>(gradient: Tensor<B, 3>, memory: &mut Memory) -> (Tensor<B, 3>, f32) {
    let squares = gradient.clone().powi_scalar(2).sum_dim(2).sum_dim(1);
    let lengths: Vec<f32> = squares.sqrt().into_data().iter::<f32>().collect();
    let finite = lengths.into_iter().filter(|length| length.is_finite());
    let deviation = memory.deviation.take(finite);
    (gradient.div_scalar(deviation), deviation)
}

/// Judgements of each sample's reference and keyword image; those not known yet are drawn now.
fn compared<B: Backend>(
    frozen: &Frozen<'_, B>,
    memory: &mut Memory,
    batch: &[&Sample],
    keyword: &Tensor<B, 3>,
    config: &ReflectionConfig,
    moment: Moment,
    seconds: &mut Seconds,
) -> Result<Vec<[Judgement; 2]>, SchedulerError> {
    let places = batch.iter().enumerate();
    let unknown: Vec<(usize, &Sample)> = places
        .filter(|(_, sample)| memory.known(sample).is_none())
        .map(|(row, sample)| (row, *sample))
        .collect();
    if !unknown.is_empty() {
        let samples: Vec<&Sample> = unknown.iter().map(|(_, sample)| *sample).collect();
        let latents: Vec<Latent<'_>> = samples.iter().map(|s| Latent::shared(s)).collect();
        let conditionings = unknown
            .iter()
            .map(|(row, _)| keyword.clone().narrow(0, *row, 1));
        let conditionings = Tensor::cat(conditionings.collect(), 0);
        let drawn = draw(
            frozen,
            &latents,
            conditionings,
            config,
            moment.seed,
            seconds,
        )?;
        let mut clock = Clock::<B>::start(&frozen.device);
        let own = rows(&samples, |s| &s.reference_visual, &frozen.device);
        let cases: Vec<Case> = samples.iter().map(|sample| case(sample)).collect();
        let own = frozen.discriminator.judge_all(&cases, own);
        let drawn = frozen.discriminator.judge_all(&cases, drawn);
        for ((sample, own), drawn) in samples.iter().zip(own).zip(drawn) {
            memory.learn(sample, [own, drawn]);
        }
        seconds.judging += clock.lap();
    }
    let known = batch.iter().map(|sample| memory.known(sample));
    Ok(known.map(|known| known.expect("judged above")).collect())
}

fn case(sample: &Sample) -> Case {
    Case {
        user: sample.user_index,
        reference: sample.reference,
    }
}
