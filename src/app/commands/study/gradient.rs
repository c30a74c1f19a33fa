//! `ragar study gradient`: the noise of the policy gradient under each baseline, with and without common random numbers.
//!
//! The gradient of `L_rank` with respect to `E_gen` has a closed form, `−(1/n) Σ_i A_i ε_i / σ` over `Q·d` dimensions,
//! so nothing is propagated back: images are drawn again and again around one point, and their gradients compared.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context as _;
use burn::tensor::Tensor;
use serde::Serialize;

use crate::app::assembly::Workshop;
use crate::app::backend::Backend;
use crate::app::commands::train::trainable;
use crate::app::config::METHOD;
use crate::app::files;
use crate::app::session::Session;
use crate::data::history::Split;
use crate::generation::conditioning::{RememberingTextEncoder, TextEncoder as _};
use crate::generation::sample::Sample;
use crate::optimisation::{Interrupt, Progress as _};
use crate::reflection::clock::Seconds;
use crate::reflection::memory::Memory;
use crate::reflection::reward::{Baseline, advantages};
use crate::reflection::rollout::{Frozen, Moment, rollout};

const BASELINES: [(&str, Baseline); 3] = [
    ("none", Baseline::None),
    ("batch-mean", Baseline::BatchMean),
    ("leave-one-out", Baseline::LeaveOneOut),
];

#[derive(Serialize)]
struct Study {
    samples: usize,
    repeats: usize,
    noises: usize,
    sigma: f32,
    rows: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    common_noise: bool,
    baseline: &'static str,
    /// Of one step's gradient around its mean, summed over dimensions, mean over samples.
    variance: f64,
    /// Squared length of the mean gradient, without what its own noise adds; mean over samples.
    signal: f64,
    /// Standard error of the signal, over samples.
    signal_error: f64,
    /// Steps whose mean has as much signal as noise; none where the signal lies within two standard errors of nothing.
    steps_for_signal: Option<f64>,
    /// Deviation of the rewards within a sample's step.
    reward_deviation: f64,
}

/// Sums of a sample's gradients.
struct Sums {
    gradient: Tensor<Backend, 1>,
    squares: f64,
}

/// Draws `repeats` gradients for each of the first training users and writes table and numbers to `out`.
pub fn gradient(
    session: &Session,
    out: &Path,
    num_samples: usize,
    repeats: usize,
) -> anyhow::Result<()> {
    anyhow::ensure!(num_samples > 0, "--samples must be at least 1");
    anyhow::ensure!(
        repeats > 1,
        "--repeats must be at least 2: one gradient has no variance"
    );
    let config = &session.config;
    anyhow::ensure!(
        config.reflection.num_noises > 0,
        "reflection.num_noises = 0: without exploration there is no policy gradient"
    );
    let watcher = session.output.watcher();
    let interrupt = Interrupt::install();
    let workshop = Workshop::open(session, config)?;
    let histories = workshop.data.users(Split::Train, num_samples);
    let items = workshop.prepare(config, histories.iter().copied(), &watcher)?;
    let samples = trainable(&workshop, config, &items, &histories, session.output)?;
    let Workshop {
        devices,
        data,
        eyes,
        generation,
        ranking,
        ..
    } = &workshop;
    let batch: Vec<&Sample> = samples.iter().collect();
    anyhow::ensure!(
        !batch.is_empty(),
        "no user of split \"train\" that the ranking model can judge"
    );

    let text = generation.text(eyes);
    let text = RememberingTextEncoder::new(&text, 4 * batch.len());
    let visual = eyes.encoder();
    let strength = config.reflection.strength;
    let references = generation.references(data, samples.iter(), strength)?;
    let frozen = Frozen {
        text: &text,
        generator: &generation.generator,
        visual: &visual,
        discriminator: &ranking.discriminator,
        references: references.as_ref(),
        latent_shape: generation.latent_shape,
        device: devices.frozen.clone(),
    };
    let prompts: Vec<&str> = batch.iter().map(|s| s.global_prompt.as_str()).collect();
    // The untrained model's point: E_gen = E_K.
    let general = text.encode(&prompts).states;
    let [_, tokens, width] = general.dims();
    let dimensions = tokens * width;
    let sigma = config.reflection.sigma;

    let mut rows = Vec::new();
    watcher.begin("gradients", 2 * repeats);
    for (number, common_noise) in [true, false].into_iter().enumerate() {
        let mut reflection = config.reflection.clone();
        reflection.common_noise = common_noise;
        let mut memory = Memory::default();
        let mut sums: Vec<Vec<Sums>> = BASELINES
            .iter()
            .map(|_| {
                let zero = || Sums {
                    gradient: Tensor::zeros([dimensions], &frozen.device),
                    squares: 0.0,
                };
                batch.iter().map(|_| zero()).collect()
            })
            .collect();
        let mut reward_variance = 0.0;
        for repeat in 0..repeats {
            if interrupt.is_raised() {
                return Err(crate::app::failure::Interrupted("interrupted".into()).into());
            }
            let moment = Moment {
                seed: config.training.seed,
                step: repeat,
            };
            let explored = rollout(
                &frozen,
                &mut memory,
                &batch,
                &general,
                &general,
                Tensor::from_data([sigma], &frozen.device),
                &reflection,
                moment,
                &mut Seconds::default(),
            )
            .context("reflection.num_steps")?;
            let rewards: Vec<Vec<f32>> = explored
                .rewards
                .iter()
                .map(|row| row.iter().map(|reward| reward.value).collect())
                .collect();
            reward_variance += rewards.iter().map(|row| variance(row)).sum::<f64>();
            let noise = explored.explored - general.clone().unsqueeze_dim::<4>(1);
            let count = reflection.num_noises;
            for ((_, baseline), sums) in BASELINES.iter().zip(&mut sums) {
                for (place, (weights, sums)) in advantages(&rewards, *baseline)
                    .into_iter()
                    .zip(sums)
                    .enumerate()
                {
                    let noise = noise
                        .clone()
                        .narrow(0, place, 1)
                        .reshape([count, dimensions]);
                    let weights = Tensor::<Backend, 1>::from_data(&weights[..], &frozen.device);
                    let scale = -1.0 / (count as f32 * sigma * sigma * dimensions as f32);
                    let gradient = (noise * weights.reshape([count, 1]))
                        .sum_dim(0)
                        .reshape([dimensions])
                        .mul_scalar(scale);
                    let squares = gradient.clone().powi_scalar(2).sum();
                    sums.squares +=
                        f64::from(squares.into_data().iter::<f32>().next().unwrap_or(0.0));
                    sums.gradient = sums.gradient.clone() + gradient;
                }
            }
            watcher.advance(number * repeats + repeat + 1, "");
        }
        let reward_deviation = (reward_variance / (repeats * batch.len()) as f64).sqrt();
        for ((baseline, _), sums) in BASELINES.iter().zip(sums) {
            let mut variance = 0.0;
            let mut signals = Vec::new();
            for sums in &sums {
                let whole = sums.gradient.clone().powi_scalar(2).sum();
                let whole = f64::from(whole.into_data().iter::<f32>().next().unwrap_or(0.0));
                let count = repeats as f64;
                let own = (sums.squares - whole / count) / (count - 1.0);
                variance += own / batch.len() as f64;
                signals.push(whole / (count * count) - own / count);
            }
            let (signal, signal_error) = mean_and_error(&signals);
            rows.push(Row {
                common_noise,
                baseline,
                variance,
                signal,
                signal_error,
                steps_for_signal: (signal > 2.0 * signal_error).then(|| variance / signal),
                reward_deviation,
            });
        }
    }
    watcher.end();
    let study = Study {
        samples: batch.len(),
        repeats,
        noises: config.reflection.num_noises,
        sigma,
        rows,
    };
    let text = table(&study);
    config.save(out, "study gradient", METHOD)?;
    files::write_json(&out.join("gradient.json"), &study)?;
    files::write(&out.join("gradient.md"), text.as_bytes())?;
    session.output.result(text, &study)
}

/// Mean and its standard error.
fn mean_and_error(values: &[f64]) -> (f64, f64) {
    let count = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>();
    (mean, (squares / (count - 1.0).max(1.0) / count).sqrt())
}

/// Unbiased; 0 of fewer than two values.
fn variance(values: &[f32]) -> f64 {
    if values.len() < 2 {
        return 0.0;
    }
    let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / values.len() as f64;
    let squares = values
        .iter()
        .map(|v| (f64::from(*v) - mean).powi(2))
        .sum::<f64>();
    squares / (values.len() - 1) as f64
}

fn table(study: &Study) -> String {
    let mut text = format!(
        "{} users, {} gradients each, n = {}, σ = {}\n\n| latents | baseline | variance | signal ± standard error | steps until signal = noise | deviation of rewards |\n|---|---|---|---|---|---|\n",
        study.samples, study.repeats, study.noises, study.sigma
    );
    for row in &study.rows {
        let steps = match row.steps_for_signal {
            Some(steps) => format!("{steps:.0}"),
            None => "no signal seen".into(),
        };
        let _ = writeln!(
            text,
            "| {} | {} | {:.2e} | {:.1e} ± {:.1e} | {steps} | {:.4} |",
            if row.common_noise { "shared" } else { "own" },
            row.baseline,
            row.variance,
            row.signal,
            row.signal_error,
            row.reward_deviation
        );
    }
    text
}
