//! The floor: everyone gets what most users took.

use burn::module::{Module, Param};
use burn::optim::GradientsParams;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Device, Tensor, TensorData};

use super::config::{MicroConfig, RecommenderError, RecommenderKind};
use super::contract::{Embeddings, Recommender, TrainableRecommender, check_parameters};
use super::features::ItemFeatures;
use super::interactions::Interactions;
use super::step::{Batch, LossParts, Step};

/// Item counts as vectors of width 1: every user's is 1, an item's is the number of users who took it.
#[derive(Module, Debug)]
pub struct Popularity<B: Backend> {
    /// All 1, `[users, 1]`.
    pub user_embedding: Param<Tensor<B, 2>>,
    /// Users per item, `[items, 1]`.
    pub item_count: Param<Tensor<B, 2>>,
}

impl<B: Backend> Recommender<B> for Popularity<B> {
    const KIND: RecommenderKind = RecommenderKind::Popularity;
    const LEARNS: bool = false;
    type Graphs = ();

    fn initial(
        _config: &MicroConfig,
        history: &Interactions,
        _features: &ItemFeatures,
        device: &Device<B>,
    ) -> Self {
        let counts: Vec<f32> = history.popularity().iter().map(|&n| n as f32).collect();
        let counts = TensorData::new(counts, [history.num_items(), 1]);
        Self {
            user_embedding: Param::from_tensor(Tensor::ones([history.num_users(), 1], device)),
            item_count: Param::from_tensor(Tensor::from_data(counts, device)),
        }
    }

    fn check_shapes(
        &self,
        _config: &MicroConfig,
        history: &Interactions,
        _features: &ItemFeatures,
    ) -> Result<(), RecommenderError> {
        check_parameters(&[
            (
                "user_embedding",
                self.user_embedding.dims(),
                [history.num_users(), 1],
            ),
            (
                "item_count",
                self.item_count.dims(),
                [history.num_items(), 1],
            ),
        ])
    }

    fn graphs(
        &self,
        _config: &MicroConfig,
        _history: &Interactions,
        _features: &ItemFeatures,
        _device: &Device<B>,
    ) -> Self::Graphs {
    }

    fn embed(&self, _graphs: &Self::Graphs) -> Embeddings<B> {
        Embeddings {
            users: self.user_embedding.val(),
            items: self.item_count.val(),
        }
    }
}

impl<B: AutodiffBackend> TrainableRecommender<B> for Popularity<B> {
    /// Nothing to lose and nothing to move.
    fn fit(
        &self,
        _graphs: &(),
        _config: &MicroConfig,
        _batch: &Batch,
        _learn_graphs: bool,
    ) -> Step<B> {
        let values = Tensor::<B, 1>::zeros([5], &self.item_count.device()).inner();
        Step {
            losses: LossParts { values },
            gradients: GradientsParams::new(),
        }
    }
}
