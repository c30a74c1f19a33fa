//! Training of the ranking model on interactions, with early stopping on held-out ones.
//!
//! The authors' recipe: Adam with a slow exponential decay; an epoch is `interactions / batch + 1` batches
//! of uniformly drawn users with one positive and one negative item each; the learned item graphs are
//! rebuilt, and learned from, in the first batch of an epoch only.

use std::collections::BTreeMap;

use burn::module::{AutodiffModule, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{Device, Tensor};
use rand::seq::index;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::optimisation::parameters::{NamedTensors, ParameterError, Selection, collect, restore};
use crate::optimisation::{
    AdamW, AdamWConfig, Checkpoint, CheckpointError, CheckpointStore, Interrupt, MetricsLog,
    Progress,
};
use crate::recommender::micro::Modality;
use crate::recommender::rank::{
    Ndcg, RankingOptions, RankingScores, evaluate_embeddings, evaluate_popularity,
};
use crate::recommender::step::{Batch, LossValues, add_idle_gradients, step};
use crate::recommender::{
    InteractionSplit, Interactions, ItemFeatures, Micro, MicroConfig, MicroGraphs, RankingModel,
    RecommenderError,
};

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
            mask_validation: false,
            cutoffs: vec![10, 20],
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
        let holds = !self.cutoffs.is_empty() && !self.cutoffs.contains(&0);
        let value = format!("{:?}", self.cutoffs);
        check("cutoffs", value, "a list of lengths of at least 1", holds)
    }

    fn ranking(&self) -> RankingOptions {
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
    /// The floor: recommending what is popular.
    pub popularity: Vec<RankingSummary>,
}

/// A trained model and how it came about.
pub struct TrainedRecommender<B: AutodiffBackend> {
    /// The best parameters over the training interactions.
    pub model: RankingModel<B::InnerBackend>,
    /// How it was reached.
    pub report: RecommenderReport,
    /// Per-user test figures, for intervals.
    pub test_scores: Vec<RankingScores>,
}

/// The state between two epochs, beside tensors.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Standing {
    epoch: usize,
    best_epoch: usize,
    best_recall: f64,
    misses: usize,
    validation_recall: Vec<(usize, f64)>,
    graph_steps: usize,
    other_steps: usize,
}

/// Trains MICRO on `split.train`, keeps the parameters with the best recall on `split.validation`, and
/// judges them on `split.test`. The same seeds give the same model, interrupted or not.
///
/// # Errors
/// See [`RecommenderTrainingError`].
pub fn train<B: AutodiffBackend>(
    config: &MicroConfig,
    training: &RecommenderTrainingConfig,
    features: &ItemFeatures,
    split: &InteractionSplit,
    train_device: &Device<B>,
    frozen_device: &Device<B::InnerBackend>,
    mut surroundings: TrainingSurroundings<'_>,
) -> Result<TrainedRecommender<B>, RecommenderTrainingError> {
    config.validate()?;
    training.validate()?;
    let sampler = Sampler::new(&split.train, training.batch_size)?;
    let mut run = Run::<B>::new(config, features, split, train_device);
    if let Some(store) = surroundings.checkpoints {
        let mut skipped = Vec::new();
        if let Some(checkpoint) = store.latest(&mut skipped)? {
            run.resume(&checkpoint, frozen_device)?;
            let epoch = run.standing.epoch;
            surroundings
                .progress
                .note(&format!("ranking model resumed after epoch {epoch}"));
        }
        skipped
            .iter()
            .for_each(|text| surroundings.progress.note(text));
    }
    let mut graphs = MicroGraphs::new(
        config,
        &split.train,
        features,
        &run.micro.valid(),
        frozen_device,
    );
    let excluded = split.train.sorted();

    surroundings
        .progress
        .begin("ranking model", training.max_epochs);
    surroundings.progress.advance(run.standing.epoch, "");
    let mut saved = run.standing.epoch;
    while run.standing.epoch < training.max_epochs && run.standing.misses <= training.patience {
        if surroundings.interrupt.is_raised() {
            if let Some(store) = surroundings.checkpoints {
                store.save(&run.checkpoint())?;
            }
            return Err(RecommenderTrainingError::Interrupted {
                epoch: run.standing.epoch,
            });
        }
        let losses = run.epoch(config, training, &sampler, &mut graphs, saved)?;
        run.standing.epoch += 1;
        let epoch = run.standing.epoch;
        let mut message = format!("loss {:.4}", losses.total);
        let due =
            epoch.is_multiple_of(training.evaluation_interval) || epoch == training.max_epochs;
        let mut recall = None;
        if due && !split.validation.is_empty() {
            let value = run.evaluate(config, training, &mut graphs, &excluded, &split.validation);
            message = format!("{message}, recall {value:.4}");
            recall = Some(value);
        }
        if let Some(log) = surroundings.log.as_deref_mut() {
            let line = serde_json::json!({"losses": losses, "recall": recall});
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
        && saved != run.standing.epoch
    {
        store.save(&run.checkpoint())?;
    }
    surroundings.progress.end();
    run.finish(config, training, features, split, frozen_device)
}

/// Draws training triples.
struct Sampler<'a> {
    train: &'a Interactions,
    /// Users with something to like and something not to.
    users: Vec<u32>,
    sorted: Vec<Vec<u32>>,
    batch_size: usize,
    num_batches: usize,
}

impl<'a> Sampler<'a> {
    fn new(train: &'a Interactions, batch_size: usize) -> Result<Self, RecommenderError> {
        let users: Vec<u32> = (0..train.num_users())
            .filter(|&user| (1..train.num_items()).contains(&train.of(user).len()))
            .map(|user| user as u32)
            .collect();
        if users.is_empty() {
            return Err(RecommenderError::NoInteractions);
        }
        Ok(Self {
            train,
            users,
            sorted: train.sorted(),
            batch_size,
            num_batches: train.len() / batch_size + 1,
        })
    }

    fn draw(&self, random: &mut ChaCha8Rng) -> Batch {
        let users: Vec<u32> = if self.batch_size <= self.users.len() {
            index::sample(random, self.users.len(), self.batch_size)
                .into_iter()
                .map(|place| self.users[place])
                .collect()
        } else {
            (0..self.batch_size)
                .map(|_| self.users[random.random_range(0..self.users.len())])
                .collect()
        };
        let mut batch = Batch {
            users,
            ..Default::default()
        };
        for &user in &batch.users {
            let items = self.train.of(user as usize);
            batch
                .positives
                .push(items[random.random_range(0..items.len())]);
            let known = &self.sorted[user as usize];
            let negative = loop {
                let item = random.random_range(0..self.train.num_items() as u32);
                if known.binary_search(&item).is_err() {
                    break item;
                }
            };
            batch.negatives.push(negative);
        }
        batch
    }
}

/// A training between its epochs.
struct Run<B: AutodiffBackend> {
    micro: Micro<B>,
    /// Feature tables and projections count their own steps, as every parameter does in PyTorch: they
    /// are moved in fewer batches than the rest.
    graph_optimizer: AdamW<B>,
    other_optimizer: AdamW<B>,
    best: NamedTensors,
    standing: Standing,
}

impl<B: AutodiffBackend> Run<B> {
    fn new(
        config: &MicroConfig,
        features: &ItemFeatures,
        split: &InteractionSplit,
        device: &Device<B>,
    ) -> Self {
        let adam = AdamWConfig {
            max_gradient_norm: 0.0,
            ..Default::default()
        };
        Self {
            micro: Micro::new(config, split.train.num_users(), features, device),
            graph_optimizer: AdamW::new(adam.clone()),
            other_optimizer: AdamW::new(adam),
            best: BTreeMap::new(),
            standing: Standing::default(),
        }
    }

    fn resume(
        &mut self,
        checkpoint: &Checkpoint,
        device: &Device<B::InnerBackend>,
    ) -> Result<(), ParameterError> {
        let standing = serde_json::from_value(checkpoint.values.clone());
        self.standing = standing.map_err(|e| ParameterError::Missing(e.to_string()))?;
        self.micro = restore(
            self.micro.clone(),
            &checkpoint.group("parameters"),
            Selection::All,
        )?;
        self.best = checkpoint.group("best");
        let (graph, other) = (self.standing.graph_steps, self.standing.other_steps);
        let group = checkpoint.group("graph-optimizer");
        self.graph_optimizer
            .restore(&self.micro, &group, graph, device)?;
        let group = checkpoint.group("optimizer");
        self.other_optimizer
            .restore(&self.micro, &group, other, device)
    }

    fn checkpoint(&self) -> Checkpoint {
        let standing = Standing {
            graph_steps: self.graph_optimizer.num_steps(),
            other_steps: self.other_optimizer.num_steps(),
            ..self.standing.clone()
        };
        let groups = [
            ("parameters", collect(&self.micro, Selection::All)),
            ("best", self.best.clone()),
            ("graph-optimizer", self.graph_optimizer.state(&self.micro)),
            ("optimizer", self.other_optimizer.state(&self.micro)),
        ];
        Checkpoint {
            step: self.standing.epoch,
            tensors: groups.map(|(name, group)| (name.to_string(), group)).into(),
            values: serde_json::to_value(standing).unwrap_or_default(),
        }
    }

    /// One epoch; returns its mean losses.
    fn epoch(
        &mut self,
        config: &MicroConfig,
        training: &RecommenderTrainingConfig,
        sampler: &Sampler<'_>,
        graphs: &mut MicroGraphs<B::InnerBackend>,
        last_good: usize,
    ) -> Result<LossValues, RecommenderTrainingError> {
        // A stream of its own per epoch: resuming needs the epoch's number only.
        let mut random = ChaCha8Rng::seed_from_u64(training.seed);
        random.set_stream(self.standing.epoch as u64);
        let rate = training.rate(self.standing.epoch);
        graphs.rebuild(config, &self.micro.valid());
        let mut watched = Vec::with_capacity(sampler.num_batches);
        for batch in 0..sampler.num_batches {
            let triples = sampler.draw(&mut random);
            let result = step(&self.micro, graphs, config, &triples, batch == 0);
            let norm = self.update(result.gradients, batch, training.idle_features, rate);
            watched.push(Tensor::cat(vec![result.losses.values, norm], 0));
        }
        // Read once per epoch: reading waits for the device.
        let values: Vec<f32> = Tensor::cat(watched, 0).into_data().iter::<f32>().collect();
        let mut means = [0f32; 6];
        for (batch, row) in values.chunks(6).enumerate() {
            if row.iter().any(|value| !value.is_finite()) {
                return Err(RecommenderTrainingError::Diverged {
                    epoch: self.standing.epoch + 1,
                    batch,
                    losses: LossValues::from_slice(row),
                    gradient_norm: row[5],
                    last_good,
                });
            }
            for (mean, value) in means.iter_mut().zip(row) {
                *mean += value / sampler.num_batches as f32;
            }
        }
        Ok(LossValues::from_slice(&means))
    }

    /// Applies gradients; returns their norm, `[1]`.
    fn update(
        &mut self,
        mut gradients: GradientsParams,
        batch: usize,
        idle: IdleFeatures,
        rate: f64,
    ) -> Tensor<B::InnerBackend, 1> {
        let mut graph_gradients = GradientsParams::new();
        if batch == 0 {
            self.take_graph_gradients(&mut gradients, &mut graph_gradients);
        } else if idle == IdleFeatures::Coast {
            add_idle_gradients(&self.micro, &mut graph_gradients);
        }
        let micro = self.micro.clone();
        let (mut micro, mut norm) = self.other_optimizer.apply(micro, gradients, rate);
        if !graph_gradients.is_empty() {
            let graph_norm;
            (micro, graph_norm) = self.graph_optimizer.apply(micro, graph_gradients, rate);
            norm = (norm.clone() * norm + graph_norm.clone() * graph_norm).sqrt();
        }
        self.micro = micro;
        norm
    }

    fn take_graph_gradients(&self, from: &mut GradientsParams, to: &mut GradientsParams) {
        let mut take = |id: ParamId| {
            if let Some(gradient) = from.remove::<B::InnerBackend, 2>(id) {
                to.register(id, gradient);
            }
        };
        for modality in Modality::ALL {
            take(self.micro.features(modality).weight.id);
            take(self.micro.projection(modality).weight.id);
        }
        for modality in Modality::ALL {
            if let Some(bias) = &self.micro.projection(modality).bias
                && let Some(gradient) = from.remove::<B::InnerBackend, 1>(bias.id)
            {
                to.register(bias.id, gradient);
            }
        }
    }

    /// Validation recall at the longest cutoff; keeps the parameters when it is the best so far.
    fn evaluate(
        &mut self,
        config: &MicroConfig,
        training: &RecommenderTrainingConfig,
        graphs: &mut MicroGraphs<B::InnerBackend>,
        excluded: &[Vec<u32>],
        validation: &Interactions,
    ) -> f64 {
        let micro = self.micro.valid();
        // The authors keep the graph of the epoch's first batch; rebuilt, the parameters alone say
        // how good the model is.
        graphs.rebuild(config, &micro);
        let output = micro.embeddings(graphs);
        let longest = training.cutoffs.iter().copied().max().unwrap_or(20);
        let options = RankingOptions {
            cutoffs: vec![longest],
            ndcg: training.ndcg,
        };
        let scores =
            evaluate_embeddings(&output.users, &output.items, excluded, validation, &options);
        let recall = scores[0].mean_recall();
        let standing = &mut self.standing;
        standing.validation_recall.push((standing.epoch, recall));
        if recall > standing.best_recall {
            standing.best_recall = recall;
            standing.best_epoch = standing.epoch;
            standing.misses = 0;
            self.best = collect(&self.micro, Selection::All);
        } else {
            standing.misses += 1;
        }
        recall
    }

    fn finish(
        self,
        config: &MicroConfig,
        training: &RecommenderTrainingConfig,
        features: &ItemFeatures,
        split: &InteractionSplit,
        device: &Device<B::InnerBackend>,
    ) -> Result<TrainedRecommender<B>, RecommenderTrainingError> {
        let (micro, best_epoch) = if self.best.is_empty() {
            (self.micro, self.standing.epoch)
        } else {
            let best = restore(self.micro, &self.best, Selection::All)?;
            (best, self.standing.best_epoch)
        };
        let model = RankingModel::new(
            config.clone(),
            micro.valid(),
            features.clone(),
            split.train.clone(),
            device,
        )?;
        let options = training.ranking();
        let mut excluded = split.train.sorted();
        if training.mask_validation {
            for (row, items) in excluded.iter_mut().zip(split.validation.by_user()) {
                row.extend(items);
                row.sort_unstable();
            }
        }
        let output = model.embeddings();
        let test_scores = evaluate_embeddings(
            &output.users,
            &output.items,
            &excluded,
            &split.test,
            &options,
        );
        let popularity = evaluate_popularity(&split.train, &excluded, &split.test, &options);
        let report = RecommenderReport {
            num_epochs: self.standing.epoch,
            best_epoch,
            validation_recall: self.standing.validation_recall,
            test: summarise(&test_scores),
            popularity: summarise(&popularity),
        };
        Ok(TrainedRecommender {
            model,
            report,
            test_scores,
        })
    }
}

fn summarise(scores: &[RankingScores]) -> Vec<RankingSummary> {
    scores
        .iter()
        .map(|score| RankingSummary {
            cutoff: score.cutoff,
            recall: score.mean_recall(),
            ndcg: score.mean_ndcg(),
        })
        .collect()
}
