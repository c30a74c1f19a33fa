//! Training of the preference model by reflection.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use burn::tensor::backend::AutodiffBackend;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::generation::calibrator::Pool;
use crate::generation::preference::PreferenceModel;
use crate::generation::sample::Sample;
use crate::networks::scheduler::SchedulerError;
use crate::optimisation::parameters::{self, ParameterError, Selection};
use crate::optimisation::{
    AdamW, AdamWConfig, Checkpoint, CheckpointError, CheckpointStore, Interrupt, MetricsLog,
    Progress, Schedule,
};
use crate::reflection::ReflectionConfig;
use crate::reflection::step::{Frozen, Memory, Parts, Settings, step};

/// Settings of the training loop (none is in the paper).
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct TrainingConfig {
    /// Updates.
    pub steps: usize,
    /// `B`: users an update.
    pub batch_size: usize,
    /// Learning rate over the steps.
    pub schedule: Schedule,
    /// The optimiser.
    pub optimizer: AdamWConfig,
    /// Seed of the initial weights, the order of users, and all noise.
    pub seed: u64,
    /// Steps between checkpoints.
    pub save_every: usize,
    /// Checkpoints kept.
    pub keep: usize,
}

impl Default for TrainingConfig {
    fn default() -> Self {
        Self {
            steps: 200,
            batch_size: 4,
            schedule: Schedule {
                learning_rate: 3e-4,
                warmup_steps: 10,
                ..Schedule::default()
            },
            optimizer: AdamWConfig::default(),
            seed: 0,
            save_every: 50,
            keep: 2,
        }
    }
}

impl TrainingConfig {
    /// Refuses values without a meaning, with the reason.
    ///
    /// # Errors
    /// A sentence that names the key.
    pub fn validate(&self) -> Result<(), String> {
        for (key, value) in [
            ("batch_size", self.batch_size),
            ("save_every", self.save_every),
        ] {
            if value == 0 {
                return Err(format!("{key} = 0: give at least 1"));
            }
        }
        let rate = self.schedule.learning_rate;
        if !(rate > 0.0 && rate.is_finite()) {
            return Err(format!("schedule.learning_rate = {rate} must be above 0"));
        }
        Ok(())
    }
}

/// Training that cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum TrainingError {
    /// No user to train on.
    #[error("there is no training sample: histories.jsonl has no line with split \"train\"")]
    Empty,
    /// A checkpoint cannot be written or read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A checkpoint does not fit the model.
    #[error("the checkpoint does not fit: {0}")]
    Parameter(#[from] ParameterError),
    /// The log cannot be written.
    #[error("{path}: {source}")]
    Log {
        path: PathBuf,
        source: std::io::Error,
    },
    /// The generator's schedule refuses `reflection.num_steps`.
    #[error("reflection.num_steps: {0}")]
    Scheduler(#[from] SchedulerError),
    /// A loss that is no number.
    #[error(
        "step {step}: the loss is {parts}; users {users}. \
         The last good checkpoint is kept in {folder}: lower training.schedule.learning_rate and run again"
    )]
    NotFinite {
        step: usize,
        parts: String,
        users: String,
        folder: PathBuf,
    },
}

/// How a training loop ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All steps are done.
    Finished,
    /// Interrupted after a step, its state saved.
    Interrupted,
}

/// One line of the log.
#[derive(Debug, Clone, Serialize)]
pub struct StepRecord {
    /// Learning rate of the step.
    pub learning_rate: f64,
    /// Global norm of the gradients before clipping.
    pub gradient_norm: f32,
    /// Losses and rewards.
    #[serde(flatten)]
    pub parts: Parts,
}

/// A run of the training loop over `samples`.
pub struct PreferenceTraining<'a, B: AutodiffBackend> {
    /// The users to train on.
    pub samples: &'a [Sample],
    /// Everything that does not train.
    pub frozen: Frozen<'a, B::InnerBackend>,
    /// Settings of the loop.
    pub training: &'a TrainingConfig,
    /// Settings of the step.
    pub reflection: &'a ReflectionConfig,
    /// From `E_gen` to the vector of `L_cal`.
    pub pool: Pool,
    /// Where checkpoints and `metrics.jsonl` go.
    pub folder: &'a Path,
    /// Ends the loop after the current step.
    pub interrupt: &'a Interrupt,
    /// Who watches.
    pub progress: &'a dyn Progress,
}

impl<B: AutodiffBackend> PreferenceTraining<'_, B> {
    /// Trains `model` from its newest checkpoint on, or from the start.
    ///
    /// # Errors
    /// When a checkpoint or the log cannot be written, the checkpoint belongs to another configuration,
    /// or a loss is not finite.
    pub fn run(
        &self,
        mut model: PreferenceModel<B>,
    ) -> Result<(PreferenceModel<B>, Outcome), TrainingError> {
        if self.samples.is_empty() {
            return Err(TrainingError::Empty);
        }
        let store = CheckpointStore::new(
            &self.folder.join("checkpoints"),
            &(self.training, self.reflection, self.pool),
            self.training.keep,
        );
        let mut optimizer = AdamW::<B>::new(self.training.optimizer.clone());
        let mut memory = Memory::default();
        let mut skipped = Vec::new();
        let mut start = 0;
        if let Some(checkpoint) = store.latest(&mut skipped)? {
            start = checkpoint.step;
            model = self.restore(model, &mut optimizer, &mut memory, &checkpoint)?;
            self.progress.note(&format!("resumed after step {start}"));
        }
        for sentence in skipped {
            self.progress.note(&sentence);
        }
        let path = self.folder.join("metrics.jsonl");
        let at = |source| TrainingError::Log {
            path: path.clone(),
            source,
        };
        std::fs::create_dir_all(self.folder).map_err(at)?;
        let mut log = MetricsLog::open(&path, start).map_err(at)?;

        let settings = Settings {
            reflection: self.reflection,
            pool: self.pool,
            seed: self.training.seed,
        };
        self.progress.begin("training", self.training.steps);
        for number in start..self.training.steps {
            let batch = self.batch(number);
            let learning_rate = self.training.schedule.rate(number, self.training.steps);
            let taken = step(&model, &self.frozen, &mut memory, &batch, settings, number)?;
            if !taken.parts.loss.is_finite() {
                return Err(TrainingError::NotFinite {
                    step: number,
                    parts: serde_json::to_string(&taken.parts).unwrap_or_default(),
                    users: batch
                        .iter()
                        .map(|s| s.user.as_str())
                        .collect::<Vec<_>>()
                        .join(", "),
                    folder: self.folder.join("checkpoints"),
                });
            }
            let (updated, norm) = optimizer.step(model, taken.loss.backward(), learning_rate);
            model = updated;
            let record = StepRecord {
                learning_rate,
                gradient_norm: norm.into_data().iter::<f32>().next().unwrap_or(f32::NAN),
                parts: taken.parts,
            };
            log.write(number, &record).map_err(at)?;
            let message = format!(
                "loss {:.4} reward {:+.4}",
                record.parts.loss, record.parts.reward
            );
            self.progress.advance(number + 1, &message);

            let done = number + 1;
            let interrupted = self.interrupt.is_raised();
            if interrupted || done % self.training.save_every == 0 || done == self.training.steps {
                store.save(&self.checkpoint(&model, &optimizer, &memory, done))?;
            }
            if interrupted && done < self.training.steps {
                self.progress.end();
                return Ok((model, Outcome::Interrupted));
            }
        }
        self.progress.end();
        Ok((model, Outcome::Finished))
    }

    /// The users of step `number`: each epoch is a permutation of all, drawn from the seed and the epoch.
    fn batch(&self, number: usize) -> Vec<&Sample> {
        let count = self.samples.len();
        let first = number * self.training.batch_size;
        (first..first + self.training.batch_size)
            .map(|place| {
                let epoch = (place / count) as u64;
                &self.samples[order(self.training.seed, epoch, count)[place % count]]
            })
            .collect()
    }

    fn checkpoint(
        &self,
        model: &PreferenceModel<B>,
        optimizer: &AdamW<B>,
        memory: &Memory,
        step: usize,
    ) -> Checkpoint {
        let parameters = parameters::collect::<B, _>(model, Selection::Trainable);
        Checkpoint {
            step,
            tensors: [
                ("parameters".to_string(), parameters),
                ("optimizer".to_string(), optimizer.state(model)),
            ]
            .into(),
            values: serde_json::to_value(memory).unwrap_or_default(),
        }
    }

    fn restore(
        &self,
        model: PreferenceModel<B>,
        optimizer: &mut AdamW<B>,
        memory: &mut Memory,
        checkpoint: &Checkpoint,
    ) -> Result<PreferenceModel<B>, TrainingError> {
        let model = parameters::restore::<B, _>(
            model,
            &checkpoint.group("parameters"),
            Selection::Trainable,
        )?;
        let device: &Device<B::InnerBackend> = &self.frozen.device;
        optimizer.restore(
            &model,
            &checkpoint.group("optimizer"),
            checkpoint.step,
            device,
        )?;
        *memory = serde_json::from_value(checkpoint.values.clone()).unwrap_or_default();
        Ok(model)
    }
}

/// The order of `count` users in an epoch.
fn order(seed: u64, epoch: u64, count: usize) -> Vec<usize> {
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    generator.set_stream(epoch);
    let mut order: Vec<usize> = (0..count).collect();
    order.shuffle(&mut generator);
    order
}
