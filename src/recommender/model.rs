//! A trained ranking model with its catalogue: everything needed to score and rank.

use burn::tensor::{Device, Tensor, backend::Backend};

use super::config::{MicroConfig, RecommenderError};
use super::features::ItemFeatures;
use super::interactions::Interactions;
use super::micro::{Micro, MicroEmbeddings, MicroGraphs};
use super::rank::{RankingOptions, RankingScores, best_items, evaluate_embeddings};

/// MICRO over one catalogue, frozen.
#[derive(Debug, Clone)]
pub struct RankingModel<B: Backend> {
    config: MicroConfig,
    micro: Micro<B>,
    graphs: MicroGraphs<B>,
    features: ItemFeatures,
    history: Interactions,
    excluded: Vec<Vec<u32>>,
    embeddings: MicroEmbeddings<B>,
}

impl<B: Backend> RankingModel<B> {
    /// Builds the graphs of `history` (the training interactions) and `features`, and embeds everything.
    /// The result depends on the parameters alone, not on how they were trained.
    ///
    /// # Errors
    /// When the configuration is invalid, or the parameters belong to another catalogue.
    pub fn new(
        config: MicroConfig,
        micro: Micro<B>,
        features: ItemFeatures,
        history: Interactions,
        device: &Device<B>,
    ) -> Result<Self, RecommenderError> {
        config.validate()?;
        micro.check_shapes(&config, history.num_users(), &features)?;
        let graphs = MicroGraphs::new(&config, &history, &features, &micro, device);
        let embeddings = micro.embeddings(&graphs);
        let excluded = history.sorted();
        Ok(Self {
            config,
            micro,
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
    pub fn micro(&self) -> &Micro<B> {
        &self.micro
    }

    /// Its graphs.
    pub fn graphs(&self) -> &MicroGraphs<B> {
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

    /// Final vectors and the stages before them.
    pub fn embeddings(&self) -> &MicroEmbeddings<B> {
        &self.embeddings
    }

    /// One user's scores of all items.
    pub fn scores(&self, user: usize) -> Vec<f32> {
        let row = self.embeddings.users.clone().slice([user..user + 1]);
        let scores: Tensor<B, 2> = row.matmul(self.embeddings.items.clone().transpose());
        scores.into_data().iter::<f32>().collect()
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
