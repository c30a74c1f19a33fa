//! A training between its epochs: parameters, optimisers, the best so far, and how they are saved.

use std::collections::BTreeMap;

use burn::optim::GradientsParams;
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{Device, Tensor};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::{
    IdleFeatures, RankingSummary, RecommenderReport, RecommenderTrainingConfig,
    RecommenderTrainingError, Sampler, TrainedRecommender, masks, summarise,
};
use crate::optimisation::parameters::{NamedTensors, ParameterError, Selection, collect, restore};
use crate::optimisation::{AdamW, AdamWConfig, Checkpoint};
use crate::recommender::rank::{evaluate_embeddings, evaluate_popularity};
use crate::recommender::step::{LossValues, add_idle_gradients, move_gradients};
use crate::recommender::{
    FrozenGraphs, InteractionSplit, Interactions, ItemFeatures, MicroConfig, RankingModel,
    Recommender, TrainableRecommender,
};

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

/// A training between its epochs.
pub(super) struct Run<'a, B: AutodiffBackend, R: TrainableRecommender<B>> {
    config: &'a MicroConfig,
    training: &'a RecommenderTrainingConfig,
    features: &'a ItemFeatures,
    split: &'a InteractionSplit,
    pub network: R,
    /// What only learned graphs reach counts its own steps, as every parameter does in PyTorch: it is moved
    /// in fewer batches than the rest.
    graph_optimizer: AdamW<B>,
    other_optimizer: AdamW<B>,
    best: NamedTensors,
    standing: Standing,
}

impl<'a, B: AutodiffBackend, R: TrainableRecommender<B>> Run<'a, B, R> {
    pub fn new(
        config: &'a MicroConfig,
        training: &'a RecommenderTrainingConfig,
        features: &'a ItemFeatures,
        split: &'a InteractionSplit,
        device: &Device<B>,
    ) -> Self {
        let adam = AdamWConfig {
            max_gradient_norm: 0.0,
            ..Default::default()
        };
        Self {
            config,
            training,
            features,
            split,
            network: R::initial(config, &split.train, features, device),
            graph_optimizer: AdamW::new(adam.clone()),
            other_optimizer: AdamW::new(adam),
            best: BTreeMap::new(),
            standing: Standing::default(),
        }
    }

    pub fn num_epochs(&self) -> usize {
        self.standing.epoch
    }

    pub fn has_patience(&self) -> bool {
        self.standing.misses <= self.training.patience
    }

    pub fn resume(
        &mut self,
        checkpoint: &Checkpoint,
        device: &Device<B::InnerBackend>,
    ) -> Result<(), ParameterError> {
        let standing = serde_json::from_value(checkpoint.values.clone());
        self.standing = standing.map_err(|e| ParameterError::Missing(e.to_string()))?;
        self.network = restore(
            self.network.clone(),
            &checkpoint.group("parameters"),
            Selection::All,
        )?;
        self.best = checkpoint.group("best");
        let (graph, other) = (self.standing.graph_steps, self.standing.other_steps);
        let group = checkpoint.group("graph-optimizer");
        self.graph_optimizer
            .restore(&self.network, &group, graph, device)?;
        let group = checkpoint.group("optimizer");
        self.other_optimizer
            .restore(&self.network, &group, other, device)
    }

    pub fn checkpoint(&self) -> Checkpoint {
        let standing = Standing {
            graph_steps: self.graph_optimizer.num_steps(),
            other_steps: self.other_optimizer.num_steps(),
            ..self.standing.clone()
        };
        let groups = [
            ("parameters", collect(&self.network, Selection::All)),
            ("best", self.best.clone()),
            ("graph-optimizer", self.graph_optimizer.state(&self.network)),
            ("optimizer", self.other_optimizer.state(&self.network)),
        ];
        Checkpoint {
            step: self.standing.epoch,
            tensors: groups.map(|(name, group)| (name.to_string(), group)).into(),
            values: serde_json::to_value(standing).unwrap_or_default(),
        }
    }

    /// One epoch; returns its mean losses.
    pub fn epoch(
        &mut self,
        sampler: &Sampler<'_>,
        graphs: &mut FrozenGraphs<B, R>,
        last_good: usize,
    ) -> Result<LossValues, RecommenderTrainingError> {
        // A stream of its own per epoch: resuming needs the epoch's number only.
        let mut random = ChaCha8Rng::seed_from_u64(self.training.seed);
        random.set_stream(self.standing.epoch as u64);
        let rate = self.training.rate(self.standing.epoch);
        self.network.valid().rebuild(self.config, graphs);
        let num_batches = sampler.num_batches();
        let mut watched = Vec::with_capacity(num_batches);
        for batch in 0..num_batches {
            let triples = sampler.draw(&mut random);
            let result = self.network.fit(graphs, self.config, &triples, batch == 0);
            let norm = self.update(result.gradients, batch, rate);
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
                *mean += value / num_batches as f32;
            }
        }
        self.standing.epoch += 1;
        Ok(LossValues::from_slice(&means))
    }

    /// Applies gradients; returns their norm, `[1]`.
    fn update(
        &mut self,
        mut gradients: GradientsParams,
        batch: usize,
        rate: f64,
    ) -> Tensor<B::InnerBackend, 1> {
        let mut graph_gradients = GradientsParams::new();
        let ids = self.network.graph_parameters();
        if batch == 0 {
            move_gradients(&self.network, &ids, &mut gradients, &mut graph_gradients);
        } else if self.training.idle_features == IdleFeatures::Coast {
            add_idle_gradients(&self.network, &ids, &mut graph_gradients);
        }
        let network = self.network.clone();
        let (mut network, mut norm) = self.other_optimizer.apply(network, gradients, rate);
        if !graph_gradients.is_empty() {
            let graph_norm;
            (network, graph_norm) = self.graph_optimizer.apply(network, graph_gradients, rate);
            norm = (norm.clone() * norm + graph_norm.clone() * graph_norm).sqrt();
        }
        self.network = network;
        norm
    }

    /// Figures on validation items; keeps the parameters when the recall at the longest cutoff is the best
    /// so far.
    pub fn evaluate(
        &mut self,
        graphs: &mut FrozenGraphs<B, R>,
        excluded: &[Vec<u32>],
        validation: &Interactions,
    ) -> Vec<RankingSummary> {
        let network = self.network.valid();
        // The authors keep the graph of the epoch's first batch; rebuilt, the parameters alone say
        // how good the model is.
        network.rebuild(self.config, graphs);
        let output = network.embed(graphs);
        let scores = evaluate_embeddings(
            &output.users,
            &output.items,
            excluded,
            validation,
            &self.training.ranking(),
        );
        let figures = summarise(&scores);
        let longest = figures.iter().max_by_key(|figure| figure.cutoff);
        let recall = longest.map_or(0.0, |figure| figure.recall);
        let standing = &mut self.standing;
        standing.validation_recall.push((standing.epoch, recall));
        if recall > standing.best_recall {
            standing.best_recall = recall;
            standing.best_epoch = standing.epoch;
            standing.misses = 0;
            self.best = collect(&self.network, Selection::All);
        } else {
            standing.misses += 1;
        }
        figures
    }

    pub fn finish(
        self,
        device: &Device<B::InnerBackend>,
    ) -> Result<TrainedRecommender<B, R>, RecommenderTrainingError> {
        let (network, best_epoch) = if self.best.is_empty() {
            (self.network, self.standing.epoch)
        } else {
            let best = restore(self.network, &self.best, Selection::All)?;
            (best, self.standing.best_epoch)
        };
        let model = RankingModel::new(
            self.config.clone(),
            network.valid(),
            self.features.clone(),
            self.split.train.clone(),
            device,
        )?;
        let options = self.training.ranking();
        let excluded = masks(self.split, self.training.mask_validation);
        let output = model.embeddings();
        let judge = |relevant: &Interactions| {
            evaluate_embeddings(&output.users, &output.items, &excluded, relevant, &options)
        };
        let test = &self.split.test;
        let (warm, cold) = test.warm_and_cold(&self.split.train);
        let test_scores = judge(test);
        let popularity = evaluate_popularity(&self.split.train, &excluded, test, &options);
        let report = RecommenderReport {
            num_epochs: self.standing.epoch,
            best_epoch,
            validation_recall: self.standing.validation_recall,
            test: summarise(&test_scores),
            warm: summarise(&judge(&warm)),
            cold: summarise(&judge(&cold)),
            popularity: summarise(&popularity),
        };
        Ok(TrainedRecommender {
            model,
            report,
            test_scores,
        })
    }
}
