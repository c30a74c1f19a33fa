//! Training of a ranking model on interactions, with early stopping on held-out ones.
//!
//! The authors' recipe: Adam with a slow exponential decay; an epoch is `interactions / batch + 1` batches
//! of uniformly drawn users with one positive and one negative item each; the learned item graphs are
//! rebuilt, and learned from, in the first batch of an epoch only.

mod run;
mod sampler;

use std::time::Instant;

use burn::tensor::Device;
use burn::tensor::backend::AutodiffBackend;
use serde::{Deserialize, Serialize};

use crate::optimisation::parameters::ParameterError;
use crate::optimisation::{CheckpointError, CheckpointStore, Interrupt, MetricsLog, Progress};
use crate::recommender::rank::{Ndcg, RankingOptions, RankingScores};
use crate::recommender::step::LossValues;
use crate::recommender::{
    InteractionSplit, Interactions, ItemFeatures, Micro, MicroConfig, RankingModel, Recommender,
    RecommenderError, TrainableRecommender,
};

pub use sampler::Sampler;

use run::Run;

/// What feature tables and projections do in batches whose loss does not reach them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IdleFeatures {
    /// They stand still, as under today's PyTorch.
    #[default]
    Still,
    /// Their momentum goes on moving them, as under the PyTorch that MICRO's authors used.
    Coast,
}

/// How the ranking model is trained. Defaults are MICRO's published settings; the numbers of items left
/// out are ours and give a history of 20 the authors' 80 : 10 : 10.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RecommenderTrainingConfig {
    /// Adam's learning rate in the first epoch.
    pub learning_rate: f64,
    /// The rate of epoch `e` is multiplied by `decay^(e / decay_epochs)`.
    pub decay: f64,
    /// See `decay`.
    pub decay_epochs: f64,
    /// Triples of user, positive and negative item per step.
    pub batch_size: usize,
    /// Epochs at most.
    pub max_epochs: usize,
    /// Epochs between two evaluations.
    pub evaluation_interval: usize,
    /// Evaluations without a better recall that are tolerated; the next one stops.
    pub patience: usize,
    /// Items per user, before the test items, for early stopping.
    pub validation_items: usize,
    /// Last items per user, for the report.
    pub test_items: usize,
    /// This share of each user's items for early stopping, where it is more than `validation_items`.
    pub validation_share: f64,
    /// This share of each user's items for the report, where it is more than `test_items`.
    pub test_share: f64,
    /// Whether test rankings leave validation items out; the authors let them compete.
    pub mask_validation: bool,
    /// Lengths of the lists that are judged; early stopping looks at the longest.
    pub cutoffs: Vec<usize>,
    /// Kind of NDCG.
    pub ndcg: Ndcg,
    /// What happens to feature tables between rebuilds.
    pub idle_features: IdleFeatures,
    /// Epochs between two checkpoints.
    pub checkpoint_interval: usize,
    /// Seed of the batches.
    pub seed: u64,
}

impl Default for RecommenderTrainingConfig {
    fn default() -> Self {
        Self {
            learning_rate: 5e-4,
            decay: 0.96,
            decay_epochs: 50.0,
            batch_size: 1024,
            max_epochs: 1000,
            evaluation_interval: 5,
            patience: 10,
            validation_items: 2,
            test_items: 2,
            validation_share: 0.0,
            test_share: 0.0,
            mask_validation: false,
            cutoffs: vec![5, 10, 20],
            ndcg: Ndcg::Standard,
            idle_features: IdleFeatures::Still,
            checkpoint_interval: 25,
            seed: 0,
        }
    }
}

impl RecommenderTrainingConfig {
    /// Refuses values that cannot train.
    ///
    /// # Errors
    /// [`RecommenderError::Setting`] naming the field.
    pub fn validate(&self) -> Result<(), RecommenderError> {
        let check = |field, value: String, allowed, holds| {
            if holds {
                Ok(())
            } else {
                Err(RecommenderError::Setting {
                    field,
                    value,
                    allowed,
                })
            }
        };
        for (field, value) in [
            ("batch_size", self.batch_size),
            ("max_epochs", self.max_epochs),
            ("evaluation_interval", self.evaluation_interval),
            ("checkpoint_interval", self.checkpoint_interval),
        ] {
            check(field, value.to_string(), "at least 1", value >= 1)?;
        }
        for (field, value) in [
            ("learning_rate", self.learning_rate),
            ("decay", self.decay),
            ("decay_epochs", self.decay_epochs),
        ] {
            let holds = value.is_finite() && value > 0.0;
            check(field, value.to_string(), "above 0", holds)?;
        }
        for (field, value) in [
            ("validation_share", self.validation_share),
            ("test_share", self.test_share),
        ] {
            let holds = (0.0..1.0).contains(&value);
            check(field, value.to_string(), "from 0 to below 1", holds)?;
        }
        let holds = !self.cutoffs.is_empty() && !self.cutoffs.contains(&0);
        let value = format!("{:?}", self.cutoffs);
        check("cutoffs", value, "a list of lengths of at least 1", holds)
    }

    /// Interactions divided as configured: the last items of each user for the report, those before them for
    /// early stopping.
    pub fn split(&self, interactions: &Interactions) -> InteractionSplit {
        let part =
            |count: usize, share: f64, items: usize| count.max((share * items as f64) as usize);
        interactions.leave_last_by(|items| {
            (
                part(self.validation_items, self.validation_share, items),
                part(self.test_items, self.test_share, items),
            )
        })
    }

    /// How lists are judged.
    pub fn ranking(&self) -> RankingOptions {
        RankingOptions {
            cutoffs: self.cutoffs.clone(),
            ndcg: self.ndcg,
        }
    }

    fn rate(&self, epoch: usize) -> f64 {
        self.learning_rate * self.decay.powf(epoch as f64 / self.decay_epochs)
    }
}

/// Training that cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum RecommenderTrainingError {
    /// A bad setting or bad data.
    #[error(transparent)]
    Input(#[from] RecommenderError),
    /// A checkpoint that cannot be written or taken up.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A checkpoint whose tensors do not fit.
    #[error("the checkpoint of the ranking model does not fit: {0}")]
    Restore(#[from] ParameterError),
    /// The log cannot be written.
    #[error("the metrics of the ranking model cannot be written: {0}")]
    Log(#[from] std::io::Error),
    /// The loss stopped being a number.
    #[error(
        "the ranking model diverged in epoch {epoch}, batch {batch}: {losses:?}, gradient norm \
         {gradient_norm}; lower `learning_rate` (the last good checkpoint is of epoch {last_good})"
    )]
    Diverged {
        /// Epoch, from 1.
        epoch: usize,
        /// Batch of the epoch, from 0.
        batch: usize,
        /// Loss parts of that batch.
        losses: LossValues,
        /// Norm of all its gradients.
        gradient_norm: f32,
        /// Epoch of the newest checkpoint, 0 when there is none.
        last_good: usize,
    },
    /// A signal asked to stop.
    #[error("interrupted after epoch {epoch}; run the same command again to go on")]
    Interrupted {
        /// Epochs done and saved.
        epoch: usize,
    },
}

/// Where a run keeps its state and whom it tells.
pub struct TrainingSurroundings<'a> {
    /// Checkpoints to resume from and write to.
    pub checkpoints: Option<&'a CheckpointStore>,
    /// Losses and recall of every epoch.
    pub log: Option<&'a mut MetricsLog>,
    /// Asked between two steps.
    pub interrupt: &'a Interrupt,
    /// Told after every epoch.
    pub progress: &'a dyn Progress,
}

/// Mean figures at one list length.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RankingSummary {
    /// Length of the lists.
    pub cutoff: usize,
    /// Mean recall.
    pub recall: f64,
    /// Mean NDCG.
    pub ndcg: f64,
}

/// What came of a training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecommenderReport {
    /// Epochs trained.
    pub num_epochs: usize,
    /// Epoch of the parameters kept.
    pub best_epoch: usize,
    /// Validation recall at the longest cutoff, per evaluation: `(epoch, recall)`.
    pub validation_recall: Vec<(usize, f64)>,
    /// Figures of the kept parameters on test items.
    pub test: Vec<RankingSummary>,
    /// The same on test items that somebody trained on, over the users who have such.
    #[serde(default)]
    pub warm: Vec<RankingSummary>,
    /// The same on test items that nobody trained on.
    #[serde(default)]
    pub cold: Vec<RankingSummary>,
    /// The floor: recommending what is popular.
    pub popularity: Vec<RankingSummary>,
}

/// A trained model and how it came about.
pub struct TrainedRecommender<B: AutodiffBackend, R: TrainableRecommender<B> = Micro<B>> {
    /// The best parameters over the training interactions.
    pub model: RankingModel<B::InnerBackend, R::InnerModule>,
    /// How it was reached.
    pub report: RecommenderReport,
    /// Per-user test figures, for intervals.
    pub test_scores: Vec<RankingScores>,
}

/// Trains a recommender on `split.train`, keeps the parameters with the best recall on `split.validation`,
/// and judges them on `split.test`. The same seeds give the same model, interrupted or not. A model that
/// does not learn is judged as it starts.
///
/// # Errors
/// See [`RecommenderTrainingError`].
pub fn train<B: AutodiffBackend, R: TrainableRecommender<B>>(
    config: &MicroConfig,
    training: &RecommenderTrainingConfig,
    features: &ItemFeatures,
    split: &InteractionSplit,
    train_device: &Device<B>,
    frozen_device: &Device<B::InnerBackend>,
    mut surroundings: TrainingSurroundings<'_>,
) -> Result<TrainedRecommender<B, R>, RecommenderTrainingError> {
    config.validate()?;
    training.validate()?;
    features.check_catalogue(&split.train)?;
    let sampler = Sampler::new(&split.train, training.batch_size)?
        .with_contrasted_items(config.contrastive_items);
    let mut run = Run::<B, R>::new(config, training, features, split, train_device);
    if let Some(store) = surroundings.checkpoints {
        let mut skipped = Vec::new();
        if let Some(checkpoint) = store.latest(&mut skipped)? {
            run.resume(&checkpoint, frozen_device)?;
            let epoch = run.num_epochs();
            surroundings
                .progress
                .note(&format!("ranking model resumed after epoch {epoch}"));
        }
        skipped
            .iter()
            .for_each(|text| surroundings.progress.note(text));
    }
    let mut graphs = run
        .network
        .valid()
        .graphs(config, &split.train, features, frozen_device);
    let excluded = split.train.sorted();
    let max_epochs = if R::LEARNS { training.max_epochs } else { 0 };

    surroundings.progress.begin("ranking model", max_epochs);
    surroundings.progress.advance(run.num_epochs(), "");
    let mut saved = run.num_epochs();
    while run.num_epochs() < max_epochs && run.has_patience() {
        if surroundings.interrupt.is_raised() {
            if let Some(store) = surroundings.checkpoints {
                store.save(&run.checkpoint())?;
            }
            return Err(RecommenderTrainingError::Interrupted {
                epoch: run.num_epochs(),
            });
        }
        let started = Instant::now();
        let losses = run.epoch(&sampler, &mut graphs, saved)?;
        let seconds = started.elapsed().as_secs_f64();
        let epoch = run.num_epochs();
        let mut message = format!("loss {:.4}", losses.total);
        let due = epoch.is_multiple_of(training.evaluation_interval) || epoch == max_epochs;
        let mut line = serde_json::json!({"losses": losses, "recall": null, "seconds": seconds});
        if due && !split.validation.is_empty() {
            let figures = run.evaluate(&mut graphs, &excluded, &split.validation);
            let longest = figures.iter().max_by_key(|figure| figure.cutoff);
            let recall = longest.map_or(0.0, |figure| figure.recall);
            message = format!("{message}, recall {recall:.4}");
            line["recall"] = recall.into();
            line["validation"] = serde_json::to_value(figures).unwrap_or_default();
        }
        if let Some(log) = surroundings.log.as_deref_mut() {
            log.write(epoch, &line)?;
        }
        surroundings.progress.advance(epoch, &message);
        if let Some(store) = surroundings.checkpoints
            && epoch.is_multiple_of(training.checkpoint_interval)
        {
            store.save(&run.checkpoint())?;
            saved = epoch;
        }
    }
    if let Some(store) = surroundings.checkpoints
        && saved != run.num_epochs()
    {
        store.save(&run.checkpoint())?;
    }
    surroundings.progress.end();
    run.finish(frozen_device)
}

/// The means of per-user figures.
pub fn summarise(scores: &[RankingScores]) -> Vec<RankingSummary> {
    scores
        .iter()
        .map(|score| RankingSummary {
            cutoff: score.cutoff,
            recall: score.mean_recall(),
            ndcg: score.mean_ndcg(),
        })
        .collect()
}

/// What a test ranking leaves out: each user's training items, and with `mask_validation` the validation
/// items too.
pub fn masks(split: &InteractionSplit, mask_validation: bool) -> Vec<Vec<u32>> {
    let mut excluded = split.train.sorted();
    if mask_validation {
        for (row, items) in excluded.iter_mut().zip(split.validation.by_user()) {
            row.extend(items);
            row.sort_unstable();
        }
    }
    excluded
}
