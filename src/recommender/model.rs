//! A trained ranking model with its catalogue: everything needed to score and rank.

use burn::tensor::{Device, backend::Backend};

use super::config::{MicroConfig, RecommenderError};
use super::contract::{Embeddings, Recommender};
use super::features::ItemFeatures;
use super::interactions::Interactions;
use super::micro::Micro;
use super::neighbours::host;
use super::rank::{RankingOptions, RankingScores, best_items, evaluate_embeddings};

/// A recommender over one catalogue, frozen; MICRO where nothing else is said.
#[derive(Debug, Clone)]
pub struct RankingModel<B: Backend, R: Recommender<B> = Micro<B>> {
    config: MicroConfig,
    network: R,
    graphs: R::Graphs,
    features: ItemFeatures,
    history: Interactions,
    excluded: Vec<Vec<u32>>,
    embeddings: Embeddings<B>,
}

impl<B: Backend, R: Recommender<B>> RankingModel<B, R> {
    /// Builds the graphs of `history` (the training interactions) and `features`, and embeds everything.
    /// The result depends on the parameters alone, not on how they were trained.
    ///
    /// # Errors
    /// When the configuration is invalid, features and interactions are of different catalogues, or the
    /// parameters belong to another one.
    pub fn new(
        config: MicroConfig,
        network: R,
        features: ItemFeatures,
        history: Interactions,
        device: &Device<B>,
    ) -> Result<Self, RecommenderError> {
        config.validate()?;
        features.check_catalogue(&history)?;
        network.check_shapes(&config, &history, &features)?;
        let graphs = network.graphs(&config, &history, &features, device);
        let embeddings = network.embed(&graphs);
        let excluded = history.sorted();
        Ok(Self {
            config,
            network,
            graphs,
            features,
            history,
            excluded,
            embeddings,
        })
    }

    /// Its configuration.
    pub fn config(&self) -> &MicroConfig {
        &self.config
    }

    /// Its parameters.
    pub fn network(&self) -> &R {
        &self.network
    }

    /// Its graphs.
    pub fn graphs(&self) -> &R::Graphs {
        &self.graphs
    }

    /// The given features of the catalogue.
    pub fn features(&self) -> &ItemFeatures {
        &self.features
    }

    /// The interactions it was trained on.
    pub fn history(&self) -> &Interactions {
        &self.history
    }

    /// The training items of each user, sorted: what is left out of rankings.
    pub fn excluded(&self) -> &[Vec<u32>] {
        &self.excluded
    }

    /// Final vectors.
    pub fn embeddings(&self) -> &Embeddings<B> {
        &self.embeddings
    }

    /// One user's scores of all items.
    pub fn scores(&self, user: usize) -> Vec<f32> {
        host(self.embeddings.scores(user..user + 1))
    }

    /// The `count` best items for a user, those of the training history left out.
    pub fn recommend(&self, user: usize, count: usize) -> Vec<u32> {
        best_items(&self.scores(user), &self.excluded[user], count)
    }

    /// Recall and NDCG on `relevant` items, training items left out.
    pub fn evaluate(
        &self,
        relevant: &Interactions,
        options: &RankingOptions,
    ) -> Vec<RankingScores> {
        evaluate_embeddings(
            &self.embeddings.users,
            &self.embeddings.items,
            &self.excluded,
            relevant,
            options,
        )
    }
}
