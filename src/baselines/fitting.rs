//! The training loop of the baselines: one module, one loss, checkpoints, a log, and an end that can be taken up.

use burn::module::AutodiffModule;
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::method::{MethodError, Watch};
use crate::optimisation::parameters::{Selection, collect, restore};
use crate::optimisation::{AdamW, AdamWConfig, Checkpoint, CheckpointStore, MetricsLog, Schedule};

/// How a baseline is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FittingConfig {
    /// Updates.
    pub steps: usize,
    /// Pictures an update.
    pub batch_size: usize,
    /// Learning rate over the steps.
    pub schedule: Schedule,
    /// The optimiser.
    pub optimizer: AdamWConfig,
    /// Seed of the initial weights, the order of pictures, and all noise.
    pub seed: u64,
    /// Steps between checkpoints.
    pub save_every: usize,
}

impl Default for FittingConfig {
    fn default() -> Self {
        Self {
            steps: 200,
            batch_size: 4,
            schedule: Schedule {
                learning_rate: 1e-3,
                warmup_steps: 10,
                ..Schedule::default()
            },
            optimizer: AdamWConfig::default(),
            seed: 0,
            save_every: 50,
        }
    }
}

impl FittingConfig {
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

/// Trains `module` in `watch.folder`, from its newest checkpoint on. `identity` is whatever must not change between two
/// parts of one training; `loss` gives the `[1]` loss of a step, which must depend on the step's number alone.
///
/// # Errors
/// A checkpoint of another identity, a full disk, a loss that is no number, an interruption.
pub fn fit<B: AutodiffBackend, M: AutodiffModule<B>>(
    config: &FittingConfig,
    name: &str,
    identity: &impl Serialize,
    mut module: M,
    frozen: &Device<B::InnerBackend>,
    watch: Watch<'_>,
    mut loss: impl FnMut(&M, usize) -> Tensor<B, 1>,
) -> Result<M, MethodError> {
    let checkpoints = watch.folder.join("checkpoints");
    let store = CheckpointStore::new(&checkpoints, &(config, identity), 2);
    let mut optimizer = AdamW::<B>::new(config.optimizer.clone());
    let mut skipped = Vec::new();
    let mut start = 0;
    if let Some(checkpoint) = store.latest(&mut skipped)? {
        start = checkpoint.step;
        let parameters = checkpoint.group("parameters");
        module = restore::<B, _>(module, &parameters, Selection::Trainable)?;
        optimizer.restore(&module, &checkpoint.group("optimizer"), start, frozen)?;
    }
    skipped
        .iter()
        .for_each(|sentence| watch.progress.note(sentence));
    if start >= config.steps {
        return Ok(module);
    }
    let path = watch.folder.join("metrics.jsonl");
    let at = |source| MethodError::File {
        path: path.clone(),
        source,
    };
    std::fs::create_dir_all(watch.folder).map_err(at)?;
    let mut log = MetricsLog::open(&path, start).map_err(at)?;
    watch.progress.begin(name, config.steps);
    for step in start..config.steps {
        let rate = config.schedule.rate(step, config.steps);
        let value = loss(&module, step);
        let number = value.clone().into_data().iter::<f32>().next();
        let number = number.unwrap_or(f32::NAN);
        if !number.is_finite() {
            return Err(MethodError::NotFinite {
                step,
                loss: number,
                folder: checkpoints,
            });
        }
        let (updated, norm) = optimizer.step(module, value.backward(), rate);
        module = updated;
        let norm = norm.into_data().iter::<f32>().next().unwrap_or(f32::NAN);
        let line = json!({ "loss": number, "gradient_norm": norm, "learning_rate": rate });
        log.write(step, &line).map_err(at)?;
        let done = step + 1;
        watch.progress.advance(done, &format!("loss {number:.4}"));
        let interrupted = watch.interrupt.is_raised();
        if interrupted || done % config.save_every == 0 || done == config.steps {
            store.save(&Checkpoint {
                step: done,
                tensors: [
                    (
                        "parameters".to_string(),
                        collect::<B, _>(&module, Selection::Trainable),
                    ),
                    ("optimizer".to_string(), optimizer.state(&module)),
                ]
                .into(),
                values: serde_json::Value::Null,
            })?;
        }
        if interrupted && done < config.steps {
            watch.progress.end();
            return Err(MethodError::Interrupted { step: done });
        }
    }
    watch.progress.end();
    Ok(module)
}
