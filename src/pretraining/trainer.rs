//! The loop that the networks' trainings share: update, average, log, checkpoint, resume.

use std::path::Path;
use std::time::Instant;

use burn::module::{AutodiffModule, Module};
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::error::PretrainingError;
use super::learner::{Learner, Learners};
use crate::optimisation::parameters::{Selection, collect, restore};
use crate::optimisation::{
    AdamWConfig, Checkpoint, CheckpointStore, Interrupt, MetricsLog, ParameterAverage, Progress,
    Schedule,
};

/// How long and how fast a network is trained, and how often it reports.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainerConfig {
    /// Optimiser steps in all; a longer run may be asked for later and continues the shorter one.
    pub steps: usize,
    /// Learning rate over the steps.
    pub schedule: Schedule,
    /// The optimiser.
    pub optimizer: AdamWConfig,
    /// Decay of the running average of the weights; the average is what is evaluated and kept.
    pub average_decay: f64,
    /// Steps between two lines of `metrics.jsonl`; reading the loss waits for the device.
    pub log_every: usize,
    /// Steps between two evaluations on held-out data.
    pub evaluate_every: usize,
    /// Steps between two checkpoints.
    pub checkpoint_every: usize,
}

impl Default for TrainerConfig {
    fn default() -> Self {
        Self {
            steps: 1000,
            schedule: Schedule::default(),
            optimizer: AdamWConfig::default(),
            average_decay: 0.999,
            log_every: 20,
            evaluate_every: 250,
            checkpoint_every: 100,
        }
    }
}

impl TrainerConfig {
    /// # Errors
    /// When an interval is zero or the decay lies outside [0, 1).
    pub fn validate(&self) -> Result<(), PretrainingError> {
        for (key, interval) in [
            ("log_every", self.log_every),
            ("evaluate_every", self.evaluate_every),
            ("checkpoint_every", self.checkpoint_every),
        ] {
            if interval == 0 {
                return Err(PretrainingError::Setting {
                    key,
                    found: "0".into(),
                    expected: "at least 1",
                });
            }
        }
        if !(0.0..1.0).contains(&self.average_decay) {
            return Err(PretrainingError::Setting {
                key: "average_decay",
                found: self.average_decay.to_string(),
                expected: "at least 0 and below 1",
            });
        }
        Ok(())
    }
}

/// Losses of a step that are logged beside their sum, each `[1]`.
pub type Parts<B> = Vec<(&'static str, Tensor<B, 1>)>;

/// What a network is worth at some step.
pub struct Evaluation {
    /// An object for `metrics.jsonl`.
    pub metrics: serde_json::Value,
    /// The same in words.
    pub words: String,
}

/// What a training leaves.
pub struct Outcome<N> {
    /// The averaged network, without a graph.
    pub network: N,
    /// Steps taken.
    pub steps: usize,
    /// Was the run stopped before its last step?
    pub interrupted: bool,
}

/// A network in training.
pub struct Trainer<'a, B: AutodiffBackend, M: AutodiffModule<B>> {
    config: &'a TrainerConfig,
    progress: &'a dyn Progress,
    module: Option<M>,
    learners: Learners<'a, B>,
    average: ParameterAverage<B::InnerBackend>,
    store: CheckpointStore,
    log: MetricsLog,
    step: usize,
    last_checkpoint: usize,
    started: Instant,
    started_at: usize,
}

impl<'a, B: AutodiffBackend, M: AutodiffModule<B>> Trainer<'a, B, M> {
    /// Starts with `module`, or goes on from the newest whole checkpoint in `folder`. `identity` is whatever must not
    /// change between the two (network, data, seed; not the number of steps). All of the module learns as `config` says.
    ///
    /// # Errors
    /// When the checkpoint belongs to another `identity` or does not fit, or the log cannot be opened.
    pub fn open(
        config: &'a TrainerConfig,
        identity: &impl Serialize,
        module: M,
        folder: &Path,
        frozen: &Device<B>,
        progress: &'a dyn Progress,
    ) -> Result<Self, PretrainingError> {
        let all = Learner {
            prefix: "",
            optimizer: &config.optimizer,
            schedule: &config.schedule,
            first_step: 0,
        };
        Self::open_with(config, &[all], identity, module, folder, frozen, progress)
    }

    /// As [`Trainer::open`], with parts of the module that learn each in its own way.
    ///
    /// # Errors
    /// Those of [`Trainer::open`].
    pub fn open_with(
        config: &'a TrainerConfig,
        learners: &[Learner<'a>],
        identity: &impl Serialize,
        module: M,
        folder: &Path,
        frozen: &Device<B>,
        progress: &'a dyn Progress,
    ) -> Result<Self, PretrainingError> {
        config.validate()?;
        let store = CheckpointStore::new(&folder.join("checkpoints"), identity, 2);
        let mut learners = Learners::new(learners);
        let mut average = ParameterAverage::new(config.average_decay);
        let mut skipped = Vec::new();
        let found = store.latest(&mut skipped)?;
        for sentence in &skipped {
            progress.note(sentence);
        }
        let (module, step) = match found {
            None => (module, 0),
            Some(checkpoint) => {
                let module = restore(module, &checkpoint.group("parameters"), Selection::All)?;
                let step = checkpoint.step;
                learners.restore(&module, &checkpoint.group("optimizer"), step, frozen)?;
                let averages = checkpoint.group("average");
                average.restore(&module.valid(), &averages, step, frozen)?;
                progress.note(&format!("going on from step {step}"));
                (module, step)
            }
        };
        let path = folder.join("metrics.jsonl");
        std::fs::create_dir_all(folder)
            .and_then(|()| MetricsLog::open(&path, step + 1))
            .map(|log| Self {
                config,
                progress,
                module: Some(module),
                learners,
                average,
                store,
                log,
                step,
                last_checkpoint: step,
                started: Instant::now(),
                started_at: step,
            })
            .map_err(|source| PretrainingError::File { path, source })
    }

    /// Trains to the last step, or until `interrupt` is raised, and saves what is reached. `loss` gives a step's loss `[1]`,
    /// which must depend on the network and the step's number alone; `evaluate` judges the averaged network now and then, and
    /// at the end.
    ///
    /// # Errors
    /// Those of `loss` and `evaluate`; a loss that is not finite; a disk that refuses.
    pub fn run(
        mut self,
        name: &str,
        interrupt: &Interrupt,
        mut loss: impl FnMut(&M, usize) -> Result<(Tensor<B, 1>, Parts<B>), PretrainingError>,
        mut evaluate: impl FnMut(&M::InnerModule, usize) -> Result<Evaluation, PretrainingError>,
    ) -> Result<Outcome<M::InnerModule>, PretrainingError> {
        let progress = self.progress;
        progress.begin(name, self.config.steps);
        while !self.is_finished() && !interrupt.is_raised() {
            let (loss, parts) = loss(self.module(), self.step)?;
            self.update(loss, &parts)?;
            if self.evaluation_is_due() {
                let found = evaluate(&self.averaged(), self.step)?;
                self.write(&found.metrics)?;
                progress.note(&format!("step {}: {}", self.step, found.words));
            }
        }
        self.save()?;
        progress.end();
        Ok(Outcome {
            network: self.averaged(),
            steps: self.step,
            interrupted: !self.is_finished(),
        })
    }

    /// Has the last step been taken?
    fn is_finished(&self) -> bool {
        self.step >= self.config.steps
    }

    /// The network in training.
    fn module(&self) -> &M {
        self.module.as_ref().expect("absent only within `update`")
    }

    /// The averaged network, without a graph.
    fn averaged(&self) -> M::InnerModule {
        self.average.apply(self.module().valid())
    }

    /// One update by the gradients of `loss` `[1]`. Every `log_every` steps the loss and the named `parts` `[1]` are
    /// read and logged; every `checkpoint_every` steps the state is saved.
    fn update(
        &mut self,
        loss: Tensor<B, 1>,
        parts: &[(&str, Tensor<B, 1>)],
    ) -> Result<(), PretrainingError> {
        let module = self.module.take().expect("absent only within `update`");
        let gradients = loss.backward();
        let (module, first) = self
            .learners
            .step(module, gradients, self.step, self.config.steps);
        self.average.update(&module.valid());
        self.module = Some(module);
        self.step += 1;
        if self.step.is_multiple_of(self.config.log_every) || self.step == 1 {
            let value = scalar(loss.inner());
            if !value.is_finite() {
                return Err(PretrainingError::NotFinite {
                    step: self.step,
                    loss: value,
                    last_checkpoint: self.last_checkpoint,
                });
            }
            let seconds =
                self.started.elapsed().as_secs_f64() / (self.step - self.started_at).max(1) as f64;
            let mut line = serde_json::Map::new();
            line.insert("loss".into(), json!(value));
            for (name, part) in parts {
                line.insert((*name).to_string(), json!(scalar(part.clone().inner())));
            }
            if let Some((norm, rate)) = first {
                line.insert("gradient_norm".into(), json!(scalar(norm)));
                line.insert("learning_rate".into(), json!(rate));
            }
            line.insert("seconds_per_step".into(), json!(seconds));
            self.write(&line)?;
            self.progress.advance(
                self.step,
                &format!("loss {value:.4}, {seconds:.2} s a step"),
            );
        }
        if self.step.is_multiple_of(self.config.checkpoint_every) {
            self.save()?;
        }
        Ok(())
    }

    /// Appends `metrics`, an object, to the log under the current step.
    fn write(&mut self, metrics: &impl Serialize) -> Result<(), PretrainingError> {
        self.log
            .write(self.step, metrics)
            .map_err(|source| PretrainingError::File {
                path: self.log.path().to_path_buf(),
                source,
            })
    }

    /// Saves a checkpoint of this step, unless there is one.
    fn save(&mut self) -> Result<(), PretrainingError> {
        if self.last_checkpoint == self.step {
            return Ok(());
        }
        let module = self.module();
        let valid = module.valid();
        let tensors = [
            ("parameters", collect(&valid, Selection::All)),
            ("optimizer", self.learners.state(module)),
            ("average", self.average.state(&valid)),
        ];
        self.store.save(&Checkpoint {
            step: self.step,
            tensors: tensors
                .map(|(name, group)| (name.to_string(), group))
                .into(),
            values: serde_json::Value::Null,
        })?;
        self.last_checkpoint = self.step;
        Ok(())
    }

    /// Is an evaluation due at this step?
    fn evaluation_is_due(&self) -> bool {
        self.step.is_multiple_of(self.config.evaluate_every) || self.is_finished()
    }
}

/// A one-element tensor as a number; waits for the device.
pub(super) fn scalar<B: burn::tensor::backend::Backend>(tensor: Tensor<B, 1>) -> f32 {
    tensor.into_data().iter::<f32>().next().unwrap_or(f32::NAN)
}

/// The number of parameters of a module, for reports.
pub(super) fn num_parameters<B: burn::tensor::backend::Backend, M: Module<B>>(module: &M) -> usize {
    module.num_params()
}
