//! The loop: steps, checkpoints, validation, rollbacks.

use std::collections::BTreeMap;
use std::path::PathBuf;

use burn::module::AutodiffModule as _;
use burn::tensor::Tensor;
use burn::tensor::backend::AutodiffBackend;
use serde::Serialize;

use super::config::{MicroBatch, MicroBatchRule};
use super::guards::Verdict;
use super::log::RunLog;
use super::sampler::Sampler;
use super::state::{Rollbacks, Run, State, write_json};
use super::{Best, Outcome, PreferenceTraining, StepRecord, TrainingConfig, TrainingError, probe};
use crate::generation::calibrator::Pool;
use crate::generation::conditioning::RememberingTextEncoder;
use crate::generation::preference::PreferenceModel;
use crate::generation::sample::Sample;
use crate::optimisation::checkpoint::{read_group, write_group};
use crate::optimisation::parameters::{self, Selection};
use crate::optimisation::{AdamW, CheckpointStore, ParameterAverage};
use crate::reflection::ReflectionConfig;
use crate::reflection::clock::Clock;
use crate::reflection::rollout::Frozen;
use crate::reflection::step::{Settings, Step, step};

/// A batch that ruined a step: enough to look at it again.
#[derive(Serialize)]
struct Replay<'a> {
    step: usize,
    reason: &'a str,
    seed: u64,
    learning_rate: f64,
    users: Vec<&'a str>,
    references: Vec<&'a str>,
    prompts: Vec<&'a str>,
    parts: &'a crate::reflection::step::Parts,
}

const BEST: &str = "best.safetensors";

/// What a checkpoint belongs to.
#[derive(Serialize)]
struct Identity<'a> {
    training: &'a TrainingConfig,
    reflection: &'a ReflectionConfig,
    pool: Pool,
    origin: &'a BTreeMap<String, String>,
    users: usize,
}

/// Files and memory of a run that outlive a rollback.
struct Desk {
    store: CheckpointStore,
    log: RunLog,
    rollbacks: Rollbacks,
    sampler: Sampler,
    /// Users that the language model reads at once.
    micro_batch: usize,
}

impl<B: AutodiffBackend> PreferenceTraining<'_, B> {
    /// Trains `model` from its newest checkpoint on, or from the start; the model that comes back is the best one where
    /// there was a validation, else the average where one is kept, else the last.
    ///
    /// # Errors
    /// When a file cannot be written, the checkpoint belongs to another configuration, or the run ruins itself again and
    /// again.
    pub fn run(
        &self,
        model: PreferenceModel<B>,
    ) -> Result<(PreferenceModel<B>, Outcome), TrainingError> {
        if self.samples.is_empty() {
            return Err(TrainingError::Empty);
        }
        let text = RememberingTextEncoder::new(self.frozen.text, self.training.remembered_prompts);
        let frozen = Frozen {
            text: &text,
            device: self.frozen.device.clone(),
            ..self.frozen
        };
        let (mut run, mut desk) = self.start(model, &frozen)?;
        self.progress.begin("training", self.training.steps);
        self.progress.advance(run.step, "");
        while run.step < self.training.steps && !run.state.stopped {
            if self.interrupt.is_raised() {
                desk.store.save(&run.checkpoint())?;
                desk.log
                    .event(run.step, "interrupted", "interrupted, all saved")?;
                self.progress.end();
                return Ok((run.model, Outcome::Interrupted));
            }
            run = self.one(run, &mut desk, &frozen)?;
        }
        self.progress.end();
        desk.log.event(run.step, "finished", "finished")?;
        Ok((self.result(run)?, Outcome::Finished))
    }

    /// A run at its newest checkpoint, or at its start.
    fn start(
        &self,
        model: PreferenceModel<B>,
        frozen: &Frozen<'_, B::InnerBackend>,
    ) -> Result<(Run<B>, Desk), TrainingError> {
        let model = if self.reflection.learn_sigma && model.log_sigma.is_none() {
            let start = Tensor::from_data([self.reflection.sigma.ln()], &frozen.device);
            model.with_learned_sigma(Tensor::from_inner(start))
        } else {
            model
        };
        let training = self.training;
        let average = (training.average_decay > 0.0).then(|| {
            ParameterAverage::new(training.average_decay).of(parameters::trainable::<B, _>(&model))
        });
        let mut run = Run {
            model,
            optimizer: AdamW::new(training.optimizer.clone()),
            average,
            state: State::default(),
            step: 0,
        };
        let identity = Identity {
            training,
            reflection: self.reflection,
            pool: self.pool,
            origin: self.origin,
            users: self.samples.len(),
        };
        let folder = self.folder.join("checkpoints");
        let store = CheckpointStore::new(&folder, &identity, training.keep)
            .accepting_changes(self.accept_changes);
        let mut skipped = Vec::new();
        let found = store.latest(&mut skipped)?;
        for sentence in skipped {
            self.progress.note(&sentence);
        }
        let begun = found.is_some();
        if let Some(checkpoint) = found {
            run = run.restore(&checkpoint, &folder, &frozen.device)?;
        }
        let micro_batch = self.micro_batch(&mut run, frozen)?;
        let mut desk = Desk {
            log: RunLog::open(self.folder, run.step, begun)?,
            rollbacks: Rollbacks::open(self.folder)?,
            sampler: Sampler::new(training.seed, self.samples.len(), training.batch_size),
            micro_batch,
            store,
        };
        if begun {
            let text = format!("resumed after step {}", run.step);
            desk.log.event(run.step, "resumed", &text)?;
            self.progress.note(&text);
        } else {
            self.validate(&mut run, &mut desk)?;
            // Something to go back to from the first step on.
            desk.store.save(&run.checkpoint())?;
        }
        Ok((run, desk))
    }

    /// One step, or one rollback.
    fn one(
        &self,
        mut run: Run<B>,
        desk: &mut Desk,
        frozen: &Frozen<'_, B::InnerBackend>,
    ) -> Result<Run<B>, TrainingError> {
        let number = run.step;
        let places = desk.sampler.batch(number);
        let batch: Vec<&Sample> = places.iter().map(|place| &self.samples[*place]).collect();
        let learning_rate = self.learning_rate(number, &desk.rollbacks);
        if !desk.rollbacks.skipped.contains(&number) {
            let settings = Settings {
                reflection: self.reflection,
                pool: self.pool,
                seed: self.training.seed,
                micro_batch: desk.micro_batch,
                segment_layers: self.training.segment_layers,
            };
            let memory = &mut run.state.memory;
            let Step {
                gradients,
                parts,
                mut seconds,
                ..
            } = step(
                &run.model,
                frozen,
                self.differentiable.as_ref(),
                memory,
                &batch,
                settings,
                number,
            )?;
            let mut clock = Clock::<B::InnerBackend>::start(&frozen.device);
            let (model, norm) = run.optimizer.apply(run.model, gradients, learning_rate);
            run.model = model;
            let gradient_norm = norm.into_data().iter::<f32>().next().unwrap_or(f32::NAN);
            seconds.update = clock.lap();
            let record = StepRecord {
                learning_rate,
                gradient_norm,
                parts,
                seconds,
            };
            match run
                .state
                .guards
                .look(&self.training.guards, &record.parts, gradient_norm)
            {
                Verdict::Ruined(reason) => {
                    return self.roll_back(run, desk, &batch, &record, &reason);
                }
                Verdict::Good(alarms) => {
                    for (word, text) in alarms {
                        self.progress.note(&format!("step {number}: {text}"));
                        desk.log.event(number, word, &text)?;
                    }
                }
            }
            if let Some(average) = &mut run.average {
                average.update(&run.model.valid());
            }
            desk.log.step(number, &record)?;
            let message = format!(
                "loss {:.4} reward {:+.4}",
                record.parts.loss, record.parts.reward
            );
            self.progress.advance(number + 1, &message);
        }
        run.step += 1;
        let better = self.validate(&mut run, desk)?;
        let last = run.step == self.training.steps || run.state.stopped;
        // A new best is saved with the state that knows of it: a rollback must not part the two.
        if better || last || run.step.is_multiple_of(self.training.save_every) {
            desk.store.save(&run.checkpoint())?;
        }
        Ok(run)
    }

    /// The schedule's rate, less after each rollback.
    fn learning_rate(&self, number: usize, rollbacks: &Rollbacks) -> f64 {
        let rate = self.training.schedule.rate(number, self.training.steps);
        let rollbacks = i32::try_from(rollbacks.skipped.len()).unwrap_or(i32::MAX);
        rate * self.training.guards.rollback_rate.powi(rollbacks)
    }

    /// Back to the newest checkpoint, without the batch that ruined the step.
    fn roll_back(
        &self,
        run: Run<B>,
        desk: &mut Desk,
        batch: &[&Sample],
        record: &StepRecord,
        reason: &str,
    ) -> Result<Run<B>, TrainingError> {
        let number = run.step;
        let replay = self.folder.join(format!("replay/step-{number:06}.json"));
        write_json(
            &replay,
            &Replay {
                step: number,
                reason,
                seed: self.training.seed,
                learning_rate: record.learning_rate,
                users: batch.iter().map(|s| s.user.as_str()).collect(),
                references: batch.iter().map(|s| s.reference_id.as_str()).collect(),
                prompts: batch.iter().map(|s| s.preference_prompt.as_str()).collect(),
                parts: &record.parts,
            },
        )?;
        let checkpoints = self.folder.join("checkpoints");
        let rollbacks = desk.rollbacks.skipped.len();
        let found = match rollbacks < self.training.guards.max_rollbacks {
            true => desk.store.latest(&mut Vec::new())?,
            false => None,
        };
        let Some(checkpoint) = found else {
            let users: Vec<&str> = batch.iter().map(|s| s.user.as_str()).collect();
            return Err(TrainingError::Diverged {
                step: number,
                reason: reason.to_string(),
                rollbacks,
                users: users.join(", "),
                replay,
                folder: checkpoints,
            });
        };
        desk.rollbacks.skipped.insert(number);
        desk.rollbacks.save(self.folder)?;
        let text = format!(
            "step {number}: {reason}; back to step {}, without this batch and at {} times the learning rate ({})",
            checkpoint.step,
            self.training.guards.rollback_rate,
            replay.display()
        );
        self.progress.note(&text);
        desk.log.event(number, "rollback", &text)?;
        let micro_batch = run.state.micro_batch;
        let mut run = run.restore(&checkpoint, &checkpoints, &self.frozen.device)?;
        run.state.micro_batch = micro_batch;
        desk.log = RunLog::open(self.folder, run.step, true)?;
        Ok(run)
    }

    /// Draws for held-out users where it is time, and remembers the best weights; whether these are new.
    fn validate(&self, run: &mut Run<B>, desk: &mut Desk) -> Result<bool, TrainingError> {
        let settings = &self.training.validation;
        let due = settings.every > 0
            && (run.step.is_multiple_of(settings.every) || run.step == self.training.steps);
        let Some(validator) = self.validator.filter(|_| due) else {
            return Ok(false);
        };
        let step = run.step;
        let shown = run.shown();
        let found = validator
            .validate(&shown, step)
            .map_err(|reason| TrainingError::Validation { step, reason })?;
        desk.log.validation(step, &found)?;
        let scores = found.scores;
        let score = *scores
            .get(&settings.metric)
            .ok_or_else(|| TrainingError::Metric {
                metric: settings.metric.clone(),
                known: scores.keys().cloned().collect::<Vec<_>>().join(", "),
            })?;
        self.progress.note(&format!(
            "step {step}: validation {} {score:.4}",
            settings.metric
        ));
        let better = run
            .state
            .best
            .as_ref()
            .is_none_or(|best| score > best.score);
        if better {
            run.state.best = Some(Best { step, score });
            run.state.stale = 0;
            let tensors = run.shown_parameters();
            write_group(&self.best(), &tensors).map_err(|e| self.at(BEST, e))?;
            let text = format!("best {} so far: {score:.4}", settings.metric);
            desk.log.event(step, "best", &text)?;
        } else {
            run.state.stale += 1;
            if settings.patience > 0 && run.state.stale >= settings.patience {
                run.state.stopped = true;
                let text = format!(
                    "{} validations without a better one: stopped",
                    settings.patience
                );
                self.progress.note(&text);
                desk.log.event(step, "stopped", &text)?;
            }
        }
        Ok(better)
    }

    /// The weights to keep.
    fn result(&self, run: Run<B>) -> Result<PreferenceModel<B>, TrainingError> {
        if run.state.best.is_some() {
            let tensors = read_group(&self.best()).map_err(|e| self.at(BEST, e))?;
            return Ok(parameters::restore::<B, _>(
                run.model,
                &tensors,
                Selection::Trainable,
            )?);
        }
        match run.average {
            None => Ok(run.model),
            Some(_) => {
                let tensors = run.shown_parameters();
                Ok(parameters::restore::<B, _>(
                    run.model,
                    &tensors,
                    Selection::Trainable,
                )?)
            }
        }
    }

    /// As it is configured now; what a probe once found stays what it was, for the same numbers.
    fn micro_batch(
        &self,
        run: &mut Run<B>,
        frozen: &Frozen<'_, B::InnerBackend>,
    ) -> Result<usize, TrainingError> {
        let whole = self.training.batch_size;
        let rule = match self.training.micro_batch {
            MicroBatch::Users(users) => return Ok(users.min(whole)),
            MicroBatch::Rule(rule) => rule,
        };
        match (rule, run.state.micro_batch) {
            (MicroBatchRule::Whole, _) => Ok(whole),
            (MicroBatchRule::Auto, Some(found)) => Ok(found),
            (MicroBatchRule::Auto, None) => {
                let layers = self.training.segment_layers;
                let fits = probe::micro_batch(&run.model, frozen, self.samples, whole, layers)?;
                run.state.micro_batch = Some(fits);
                self.progress.note(&format!(
                    "training.micro_batch: {fits} of {whole} fit at once"
                ));
                Ok(fits)
            }
        }
    }

    fn best(&self) -> PathBuf {
        self.folder.join(BEST)
    }

    fn at(&self, name: &str, source: std::io::Error) -> TrainingError {
        TrainingError::File {
            path: self.folder.join(name),
            source,
        }
    }
}
