//! One training step of RAGAR, the equations of the paper in order.

use burn::module::AutodiffModule as _;
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Tensor, TensorData};
use serde::Serialize;

use crate::generation::calibrator::{Pool, pool_end, pool_mean};
use crate::generation::conditioning::{Conditioning, TextEncoder};
use crate::generation::preference::{Preference, PreferenceModel, Reading};
use crate::generation::sample::{Sample, rows};
use crate::generation::segments;
use crate::generation::shift::retrieval_shift;
use crate::networks::scheduler::SchedulerError;

use super::clock::{Clock, Seconds};
use super::config::ReflectionConfig;
use super::direct::{Differentiable, direct, normalised};
use super::losses;
use super::memory::Memory;
use super::reward::{Reward, advantages};
use super::rollout::{Frozen, Moment, Rollout, rollout};

/// The losses of one step, and what is behind them, as numbers.
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
    /// δ.
    pub margin: f32,
    /// Mean likeness of the explored images to the reference's caption, where it is part of the reward.
    pub likeness: f32,
    /// Mean rank of the explored images.
    pub rank_personalised: f32,
    /// Mean rank of the references.
    pub rank_reference: f32,
    /// Mean rank of the keyword images.
    pub rank_keyword: f32,
    /// Deviation of the advantages before they were normalised.
    pub advantage_deviation: f32,
    /// σ of the exploration.
    pub sigma: f32,
    /// Mean share of the retrieval's shift in `E_gen`.
    pub retrieval_share: f32,
    /// Mean length of a token of `E_gen`.
    pub conditioning_norm: f32,
    /// Mean length of a token of `E_K`: where real prompts lie.
    pub keyword_norm: f32,
}

/// A step's gradients, and the numbers behind them.
pub struct Step {
    /// Of the mean over the batch of `L`.
    pub gradients: GradientsParams,
    /// The losses' parts.
    pub parts: Parts,
    /// A row per sample, a reward per noise.
    pub rewards: Vec<Vec<Reward>>,
    /// Where the time went.
    pub seconds: Seconds,
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
    /// Samples that the language model reads at once; 0 for the whole batch.
    pub micro_batch: usize,
    /// Layers of the language model whose activations are kept at once; 0 for all.
    pub segment_layers: usize,
}

/// Training step `number` over `batch`, by the reward's own gradient where `differentiable` networks are given, else by
/// policy gradient; equation numbers are those of `docs/method.md`.
///
/// First the rollout, which needs no graph: the preference as it is now, images drawn around it, their reward. Then
/// the losses with a graph, micro-batch by micro-batch: no activation waits in memory while images are drawn.
///
/// # Errors
/// When the generator's schedule refuses the number of denoising steps.
pub fn step<B: AutodiffBackend>(
    model: &PreferenceModel<B>,
    frozen: &Frozen<'_, B::InnerBackend>,
    differentiable: Option<&Differentiable<'_, B>>,
    memory: &mut Memory,
    batch: &[&Sample],
    settings: Settings<'_>,
    number: usize,
) -> Result<Step, SchedulerError> {
    let config = settings.reflection;
    let mut seconds = Seconds::default();
    let mut clock = Clock::<B::InnerBackend>::start(&frozen.device);

    // (9) "Global": the generator's own reading of the keywords and the reference's words.
    let prompts: Vec<&str> = batch.iter().map(|s| s.global_prompt.as_str()).collect();
    let keyword = frozen.text.encode(&prompts);

    // (7)–(9) The language model's preference, mapped and fused: E_gen as it is now.
    let micros = micro_batches(
        batch,
        &keyword,
        frozen,
        settings.micro_batch,
        model.takes_shift(),
    );
    let without_graph = model.valid();
    let general = micros.iter().map(|micro| {
        let preference = without_graph.forward(&micro.reading(|tensor| tensor, |tensor| tensor));
        preference.general
    });
    let general = Tensor::cat(general.collect(), 0);
    seconds.language = clock.lap();

    // (11)–(14) Explore, draw, judge, reward.
    let log_sigma = match &model.log_sigma {
        Some(learned) => learned.val(),
        None => Tensor::from_inner(Tensor::from_data([config.sigma.ln()], &frozen.device)),
    };
    let sigma = log_sigma.clone().inner().exp();
    let moment = Moment {
        seed: settings.seed,
        step: number,
    };
    // (15) How much better than the other images of the sample, or where the reward itself points.
    let (verdict, rewards, advantage_deviation) = match differentiable {
        _ if config.num_noises == 0 => (Verdict::None, Vec::new(), 0.0),
        None => {
            let states = &keyword.states;
            let rollout = rollout(
                frozen,
                memory,
                batch,
                states,
                &general,
                sigma.clone(),
                config,
                moment,
                &mut seconds,
            )?;
            let (advantages, deviation) = weighed(&rollout.rewards, config, memory);
            let rewards = rollout.rewards.clone();
            (Verdict::Explored(rollout, advantages), rewards, deviation)
        }
        Some(differentiable) => {
            let states = &keyword.states;
            let direct = direct(
                frozen,
                differentiable,
                memory,
                batch,
                states,
                &general,
                config,
                moment,
                &mut seconds,
            )?;
            let (gradient, deviation) = match config.normalise_advantages {
                true => normalised(direct.gradient, memory),
                false => (direct.gradient, 0.0),
            };
            (Verdict::Direct(gradient), direct.rewards, deviation)
        }
    };

    // (7)–(10), (15)–(17) Once more, to learn from it.
    clock.lap();
    let mut accumulator = GradientsAccumulator::new();
    let mut values = Losses::default();
    for micro in &micros {
        let share = micro.samples.len() as f32 / batch.len() as f32;
        let reading = micro.reading(Tensor::from_inner, Tensor::from_inner);
        let gradients =
            segments::gradients(model, &reading, settings.segment_layers, |preference| {
                let losses = losses_of(
                    preference,
                    micro,
                    frozen.text,
                    &verdict,
                    log_sigma.clone(),
                    settings,
                );
                values.add(&losses, share);
                losses[0].clone().mul_scalar(share)
            });
        accumulator.accumulate(model, gradients);
    }
    let [loss, rank, calibration, semantic] = values.read();
    seconds.learning = clock.lap();

    let all = || rewards.iter().flatten();
    Ok(Step {
        gradients: accumulator.grads(),
        parts: Parts {
            loss,
            rank,
            calibration,
            semantic,
            reward: mean(all().map(|r| r.value)),
            score_personalised: mean(all().map(|r| r.personalised.score)),
            score_reference: mean(all().map(|r| r.reference.score)),
            score_keyword: mean(all().map(|r| r.keyword.score)),
            margin: config.margin,
            likeness: mean(all().map(|r| r.semantic)),
            rank_personalised: mean(all().map(|r| r.personalised.rank as f32)),
            rank_reference: mean(all().map(|r| r.reference.rank as f32)),
            rank_keyword: mean(all().map(|r| r.keyword.rank as f32)),
            advantage_deviation,
            sigma: number_of(sigma),
            retrieval_share: without_graph.mean_share(),
            conditioning_norm: token_norm(general),
            keyword_norm: token_norm(keyword.states),
        },
        rewards,
        seconds,
    })
}

/// What the ranking model's reward says of `E_gen`.
enum Verdict<B: Backend> {
    /// Nothing was drawn.
    None,
    /// Explored images with their advantages, a row per sample.
    Explored(Rollout<B>, Vec<Vec<f32>>),
    /// The reward's gradient, `[batch, Q, d]`.
    Direct(Tensor<B, 3>),
}

/// A part of a batch that the language model reads at once.
struct MicroBatch<'a, B: Backend> {
    /// Its first sample's row in the batch.
    start: usize,
    samples: &'a [&'a Sample],
    prompts: Vec<&'a [u32]>,
    keyword: Conditioning<B>,
    /// `p_ret` and `e_r`, `[samples, joint width]`.
    retrieved: Tensor<B, 2>,
    reference: Tensor<B, 2>,
    /// Where the model takes it, `[samples, Q, d]`.
    shift: Option<Tensor<B, 3>>,
}

impl<B: Backend> MicroBatch<'_, B> {
    /// What the model reads, on a backend with or without a graph.
    fn reading<A: Backend>(
        &self,
        states: impl Fn(Tensor<B, 3>) -> Tensor<A, 3>,
        vectors: impl Fn(Tensor<B, 2>) -> Tensor<A, 2>,
    ) -> Reading<'_, A> {
        Reading {
            prompts: &self.prompts,
            global: states(self.keyword.states.clone()),
            retrieved: vectors(self.retrieved.clone()),
            shift: self.shift.clone().map(states),
        }
    }
}

fn micro_batches<'a, B: Backend>(
    batch: &'a [&'a Sample],
    keyword: &Conditioning<B>,
    frozen: &Frozen<'_, B>,
    size: usize,
    shift: bool,
) -> Vec<MicroBatch<'a, B>> {
    let size = if size == 0 { batch.len() } else { size };
    let chunks = batch.chunks(size.max(1)).enumerate();
    chunks
        .map(|(index, samples)| {
            let (start, count) = (index * size, samples.len());
            MicroBatch {
                start,
                samples,
                prompts: samples
                    .iter()
                    .map(|s| s.preference_ids.as_slice())
                    .collect(),
                keyword: Conditioning {
                    states: keyword.states.clone().narrow(0, start, count),
                    padding: keyword.padding.clone().narrow(0, start, count),
                    ends: keyword.ends.clone().narrow(0, start, count),
                },
                retrieved: rows(samples, |s| &s.retrieved_preference, &frozen.device),
                reference: rows(samples, |s| &s.reference_semantic, &frozen.device),
                shift: shift.then(|| retrieval_shift(samples, frozen.text)),
            }
        })
        .collect()
}

/// `A_i`, a row per sample, and their deviation before normalising.
fn weighed(
    rewards: &[Vec<Reward>],
    config: &ReflectionConfig,
    memory: &mut Memory,
) -> (Vec<Vec<f32>>, f32) {
    let values: Vec<Vec<f32>> = rewards
        .iter()
        .map(|row| row.iter().map(|reward| reward.value).collect())
        .collect();
    let advantages = advantages(&values, config.baseline);
    let deviation = deviation(advantages.iter().flatten().copied());
    if config.normalise_advantages {
        (memory.deviation.normalise(advantages), deviation)
    } else {
        (advantages, deviation)
    }
}

/// `[L, L_rank, L_cal, L_sem]` of one micro-batch.
fn losses_of<B: AutodiffBackend>(
    preference: Preference<B>,
    micro: &MicroBatch<'_, B::InnerBackend>,
    text: &dyn TextEncoder<B::InnerBackend>,
    verdict: &Verdict<B::InnerBackend>,
    log_sigma: Tensor<B, 1>,
    settings: Settings<'_>,
) -> [Tensor<B, 1>; 4] {
    let config = settings.reflection;
    let Preference {
        multimodal,
        padding,
        general,
    } = preference;
    let (start, count) = (micro.start, micro.samples.len());

    // (10) Balance Calibrator: the conditioning stays near what retrieval found.
    let pooled = pooled_general(general.clone(), &micro.keyword, text, settings.pool);
    let retrieved = Tensor::from_inner(micro.retrieved.clone());
    let calibration = losses::calibration(pooled, retrieved, config.distance);

    // (16) The multimodal preference stays near the reference's meaning.
    let reference = Tensor::from_inner(micro.reference.clone());
    let semantic = losses::semantic(pool_mean(multimodal, padding), reference, config.distance);

    // (15) The conditioning moves towards what was rewarded.
    let rank = match verdict {
        Verdict::None => Tensor::zeros([1], &general.device()),
        Verdict::Explored(rollout, advantages) => {
            let explored = rollout.explored.clone().narrow(0, start, count);
            let flat: Vec<f32> = advantages[start..start + count].concat();
            let weights = TensorData::new(flat, [count, config.num_noises]);
            let weights = Tensor::from_data(weights, &explored.device());
            losses::rank(general, explored, weights, log_sigma)
        }
        Verdict::Direct(gradient) => {
            losses::direct_rank(general, gradient.clone().narrow(0, start, count))
        }
    };

    // (17) The whole.
    let loss = rank.clone().mul_scalar(config.rank_weight)
        + calibration.clone().mul_scalar(config.calibration_weight)
        + semantic.clone().mul_scalar(config.semantic_weight);
    [loss, rank, calibration, semantic]
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

/// Losses of the micro-batches so far, weighted by their share, on the device.
struct Losses<B: Backend>(Option<Tensor<B, 1>>);

impl<B: Backend> Default for Losses<B> {
    fn default() -> Self {
        Self(None)
    }
}

impl<B: Backend> Losses<B> {
    fn add<A: AutodiffBackend<InnerBackend = B>>(
        &mut self,
        losses: &[Tensor<A, 1>; 4],
        share: f32,
    ) {
        let all = losses.iter().map(|loss| loss.clone().inner()).collect();
        let all = Tensor::cat(all, 0).mul_scalar(share);
        self.0 = Some(match self.0.take() {
            Some(sum) => sum + all,
            None => all,
        });
    }

    fn read(self) -> [f32; 4] {
        let mut read = [f32::NAN; 4];
        let values = self.0.map(Tensor::into_data);
        for (place, value) in read
            .iter_mut()
            .zip(values.iter().flat_map(TensorData::iter::<f32>))
        {
            *place = value;
        }
        read
    }
}

fn number_of<B: Backend>(tensor: Tensor<B, 1>) -> f32 {
    tensor.into_data().iter::<f32>().next().unwrap_or(f32::NAN)
}

/// Mean length of a token of `[batch, Q, d]`.
fn token_norm<B: Backend>(states: Tensor<B, 3>) -> f32 {
    number_of(states.powi_scalar(2).sum_dim(2).sqrt().mean())
}

fn mean(values: impl Iterator<Item = f32>) -> f32 {
    let (sum, count) = values.fold((0.0, 0), |(sum, count), value| (sum + value, count + 1));
    if count == 0 { 0.0 } else { sum / count as f32 }
}

fn deviation(values: impl Iterator<Item = f32> + Clone) -> f32 {
    let centre = mean(values.clone());
    mean(values.map(|value| (value - centre).powi(2))).sqrt()
}
