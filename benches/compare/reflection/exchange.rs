//! What the other implementation of a step is told, and what it is held against.
//!
//! Told are numbers that only this program has: the users' samples (prompts, captions, vectors that frozen networks made of
//! items once), the ranking model's parameters with its training interactions, the initial weights, and the noise of the
//! steps that are checked. How a step is computed is not: graphs, embeddings and prompts' states are for the other to make.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use model_import::write_tensors;
use ragar::app::assembly::Ranking;
use ragar::app::backend::Backend;
use ragar::app::config::RunConfig;
use ragar::generation::calibrator::Pool;
use ragar::generation::drawing::Latent;
use ragar::generation::generator::is_whole;
use ragar::generation::noise::NoiseKey;
use ragar::generation::preference::PreferenceModel;
use ragar::generation::sample::Sample;
use ragar::optimisation::parameters::{NamedTensors, Selection, collect};
use ragar::pretrained::llama;
use ragar::reflection::losses::Distance;
use ragar::reflection::reward::{Baseline, Reward, RewardForm};
use ragar::reflection::{Exploration, RewardGradient};
use serde::Serialize;

use crate::CHECKED;

/// What came of a step.
#[derive(Serialize)]
pub struct CheckedStep {
    /// `L`, `L_rank`, `L_cal`, `L_sem`.
    pub losses: [f32; 4],
    /// Of all gradients together, before clipping.
    pub gradient_norm: f32,
    /// A row per sample, a reward per noise.
    pub rewards: Vec<Vec<Reward>>,
}

/// Refuses what the other implementation does not have.
pub fn check(config: &RunConfig) -> anyhow::Result<()> {
    let (reflection, preference) = (&config.reflection, &config.preference);
    let demands = [
        (
            reflection.gradient == RewardGradient::Policy,
            "reflection.gradient=policy",
        ),
        (
            reflection.exploration == Exploration::Retrieved,
            "reflection.exploration=retrieved",
        ),
        (
            reflection.reward == RewardForm::Margin,
            "reflection.reward=margin",
        ),
        (
            reflection.baseline == Baseline::LeaveOneOut && reflection.num_noises > 1,
            "reflection.baseline=leave-one-out over two noises or more",
        ),
        (
            reflection.distance == Distance::Mse,
            "reflection.distance=mse",
        ),
        (
            reflection.scheduler.is_pipeline() && is_whole(&reflection.strength),
            "the pipeline's sampler from noise alone",
        ),
        (
            !reflection.learn_sigma && !preference.retrieval_token && preference.retrieval_shift,
            "the shift as the only extra",
        ),
        (
            preference.calibrator.pool == Pool::Mean,
            "preference.calibrator.pool=mean",
        ),
        (
            config.ranking.model.num_item_layers == 1,
            "ranking.model.num_item_layers=1",
        ),
    ];
    match demands.iter().find(|(met, _)| !met) {
        None => Ok(()),
        Some((_, demand)) => anyhow::bail!("only {demand} is compared"),
    }
}

/// The folder between the two.
pub struct Exchange<'a> {
    pub folder: &'a Path,
    pub config: &'a RunConfig,
    pub device: &'a Device<Backend>,
}

impl Exchange<'_> {
    /// Leaves what the other must be told.
    pub fn write(
        &self,
        model: &PreferenceModel<Backend>,
        ranking: &Ranking,
        batch: &[Sample],
        latent_shape: [usize; 3],
    ) -> anyhow::Result<()> {
        let places = batch.iter().map(|s| ranking.items.row(s.reference));
        let told = serde_json::json!({
            "config": self.config,
            "checked": CHECKED,
            "samples": batch,
            "reference_rows": places.collect::<Vec<_>>(),
        });
        std::fs::write(self.folder.join("told.json"), serde_json::to_vec(&told)?)?;

        // The adapter as PEFT reads it.
        let adapter = model.llama.adapter().expect("a fresh model has one");
        let lora = &self.config.preference.lora;
        let base = self.config.models.language_model.display().to_string();
        llama::save_adapter(&self.folder.join("adapter"), lora, &adapter, &base)?;

        let mut tensors = NamedTensors::new();
        for (name, data) in collect::<Backend, _>(model, Selection::Trainable) {
            if !name.starts_with("llama.") {
                tensors.insert(format!("trained.{name}"), data);
            }
        }
        let judge = ranking.discriminator.model();
        for (name, data) in collect::<Backend, _>(judge.network(), Selection::All) {
            tensors.insert(format!("micro.{name}"), data);
        }
        for (name, table) in [
            ("micro.given_image", &judge.features().image),
            ("micro.given_text", &judge.features().text),
        ] {
            let given: Tensor<Backend, 2> = table.tensor(self.device);
            tensors.insert(name.into(), given.into_data());
        }
        let by_user = judge.history().by_user().iter().enumerate();
        let pairs: Vec<i64> = by_user
            .flat_map(|(user, items)| {
                let pair = move |item: &u32| [user as i64, i64::from(*item)];
                items.iter().flat_map(pair)
            })
            .collect();
        let count = pairs.len() / 2;
        tensors.insert(
            "micro.interactions".into(),
            TensorData::new(pairs, [count, 2]),
        );
        self.noise(batch, latent_shape, &mut tensors)?;
        write_tensors(
            &self.folder.join("told.safetensors"),
            &tensors,
            &BTreeMap::new(),
        )?;
        Ok(())
    }

    /// The noise of the checked steps.
    fn noise(
        &self,
        batch: &[Sample],
        shape: [usize; 3],
        tensors: &mut NamedTensors,
    ) -> anyhow::Result<()> {
        let seed = self.config.training.seed;
        let (noises, common) = (
            self.config.reflection.num_noises,
            self.config.reflection.common_noise,
        );
        let latents = |all: Vec<Latent<'_>>| {
            let drawn = all.iter().map(|l| l.initial(seed, shape, self.device));
            Tensor::<Backend, 4>::cat(drawn.collect(), 0).into_data()
        };
        // As many as there are ways: to each retrieved caption, and to the reference's.
        let ways = 1 + batch[0].retrieved_captions.len();
        anyhow::ensure!(
            batch.iter().all(|s| s.retrieved_captions.len() + 1 == ways),
            "samples with different numbers of retrieved items"
        );
        tensors.insert(
            "latents.shared".into(),
            latents(batch.iter().map(Latent::shared).collect()),
        );
        for step in 0..CHECKED {
            let own = |sample| {
                (0..noises).map(move |noise| match common {
                    true => Latent::shared(sample),
                    false => Latent::own(sample, noise, step),
                })
            };
            tensors.insert(
                format!("latents.{step}"),
                latents(batch.iter().flat_map(own).collect()),
            );
            let shares = batch.iter().flat_map(|sample| {
                let key = move |noise| NoiseKey {
                    seed,
                    stream: "exploration",
                    user: &sample.user,
                    item: &sample.reference_id,
                    noise,
                    step,
                };
                (0..noises).flat_map(move |noise| key(noise).normal(ways))
            });
            let shares = TensorData::new(shares.collect::<Vec<f32>>(), [batch.len(), noises, ways]);
            tensors.insert(format!("exploration.{step}"), shares);
        }
        Ok(())
    }

    /// Leaves what came of the checked steps, and the weights after them.
    pub fn leave(&self, steps: &[CheckedStep], weights: &NamedTensors) -> anyhow::Result<()> {
        let path = self.folder.join("ragar.json");
        std::fs::write(path, serde_json::to_vec(steps)?)?;
        let path = self.folder.join("ragar.safetensors");
        Ok(write_tensors(&path, weights, &BTreeMap::new())?)
    }
}
