//! The models that know interactions alone: LightGCN and matrix factorisation, under one pairwise loss.
//!
//! LightGCN propagates over the graph that MICRO uses, row-normalised with self loops: what is left of MICRO
//! without pictures and texts. Its inventors normalise both sides and leave the loops out.

use burn::module::{AutodiffModule, Module};
use burn::nn::Embedding;
use burn::optim::GradientsParams;
use burn::tensor::Device;
use burn::tensor::backend::{AutodiffBackend, Backend};

use super::config::{MicroConfig, RecommenderError, RecommenderKind};
use super::contract::{Embeddings, Recommender, TrainableRecommender, check_parameters};
use super::features::ItemFeatures;
use super::initial::InitialValues;
use super::interactions::Interactions;
use super::light_gcn::{LightGcn, Nodes};
use super::step::{Batch, LossParts, Step, pairwise_loss};

/// LightGCN: id embeddings averaged over the layers of a propagation.
#[derive(Module, Debug)]
pub struct LightGcnRecommender<B: Backend> {
    /// `[users, width]`.
    pub user_embedding: Embedding<B>,
    /// `[items, width]`.
    pub item_id_embedding: Embedding<B>,
}

/// Matrix factorisation (Rendle et al., 2009): id embeddings and nothing else.
#[derive(Module, Debug)]
pub struct MatrixFactorisation<B: Backend> {
    /// `[users, width]`.
    pub user_embedding: Embedding<B>,
    /// `[items, width]`.
    pub item_id_embedding: Embedding<B>,
}

impl<B: Backend> Recommender<B> for LightGcnRecommender<B> {
    const KIND: RecommenderKind = RecommenderKind::LightGcn;
    type Graphs = LightGcn<B>;

    fn initial(
        config: &MicroConfig,
        history: &Interactions,
        _features: &ItemFeatures,
        device: &Device<B>,
    ) -> Self {
        let mut initial = InitialValues::new(config.seed, device);
        Self {
            user_embedding: initial.table(history.num_users(), config.embedding_width),
            item_id_embedding: initial.table(history.num_items(), config.embedding_width),
        }
    }

    fn check_shapes(
        &self,
        config: &MicroConfig,
        history: &Interactions,
        _features: &ItemFeatures,
    ) -> Result<(), RecommenderError> {
        check_tables(
            &self.user_embedding,
            &self.item_id_embedding,
            config,
            history,
        )
    }

    fn graphs(
        &self,
        config: &MicroConfig,
        history: &Interactions,
        _features: &ItemFeatures,
        device: &Device<B>,
    ) -> Self::Graphs {
        LightGcn::new(history, config.num_layers, config.dense_cells, device)
    }

    fn embed(&self, graphs: &Self::Graphs) -> Embeddings<B> {
        let nodes = graphs.propagate(Nodes {
            users: self.user_embedding.weight.val(),
            items: self.item_id_embedding.weight.val(),
        });
        Embeddings {
            users: nodes.users,
            items: nodes.items,
        }
    }
}

impl<B: AutodiffBackend> TrainableRecommender<B> for LightGcnRecommender<B> {
    fn fit(
        &self,
        graphs: &LightGcn<B::InnerBackend>,
        config: &MicroConfig,
        batch: &Batch,
        _learn_graphs: bool,
    ) -> Step<B> {
        let embeddings = self.valid().embed(graphs);
        let (losses, gradients) = fit_vectors::<B>(embeddings, config, batch);
        let back = graphs.propagate_back(gradients);
        let mut parameters = GradientsParams::new();
        parameters.register(self.user_embedding.weight.id, back.users);
        parameters.register(self.item_id_embedding.weight.id, back.items);
        Step {
            losses,
            gradients: parameters,
        }
    }
}

impl<B: Backend> Recommender<B> for MatrixFactorisation<B> {
    const KIND: RecommenderKind = RecommenderKind::MatrixFactorisation;
    type Graphs = ();

    fn initial(
        config: &MicroConfig,
        history: &Interactions,
        _features: &ItemFeatures,
        device: &Device<B>,
    ) -> Self {
        let mut initial = InitialValues::new(config.seed, device);
        Self {
            user_embedding: initial.table(history.num_users(), config.embedding_width),
            item_id_embedding: initial.table(history.num_items(), config.embedding_width),
        }
    }

    fn check_shapes(
        &self,
        config: &MicroConfig,
        history: &Interactions,
        _features: &ItemFeatures,
    ) -> Result<(), RecommenderError> {
        check_tables(
            &self.user_embedding,
            &self.item_id_embedding,
            config,
            history,
        )
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
            users: self.user_embedding.weight.val(),
            items: self.item_id_embedding.weight.val(),
        }
    }
}

impl<B: AutodiffBackend> TrainableRecommender<B> for MatrixFactorisation<B> {
    fn fit(
        &self,
        graphs: &(),
        config: &MicroConfig,
        batch: &Batch,
        _learn_graphs: bool,
    ) -> Step<B> {
        let embeddings = self.valid().embed(graphs);
        let (losses, gradients) = fit_vectors::<B>(embeddings, config, batch);
        let mut parameters = GradientsParams::new();
        parameters.register(self.user_embedding.weight.id, gradients.users);
        parameters.register(self.item_id_embedding.weight.id, gradients.items);
        Step {
            losses,
            gradients: parameters,
        }
    }
}

/// The pairwise loss of final vectors and its gradient for each of them.
fn fit_vectors<B: AutodiffBackend>(
    embeddings: Embeddings<B::InnerBackend>,
    config: &MicroConfig,
    batch: &Batch,
) -> (LossParts<B::InnerBackend>, Nodes<B::InnerBackend>) {
    let pairwise = pairwise_loss::<B>(config, batch, embeddings.users, embeddings.items);
    let losses = LossParts::without_contrast(&pairwise);
    let nodes = Nodes {
        users: pairwise.user_gradient,
        items: pairwise.item_gradient,
    };
    (losses, nodes)
}

fn check_tables<B: Backend>(
    users: &Embedding<B>,
    items: &Embedding<B>,
    config: &MicroConfig,
    history: &Interactions,
) -> Result<(), RecommenderError> {
    let width = config.embedding_width;
    check_parameters(&[
        (
            "user_embedding",
            users.weight.dims(),
            [history.num_users(), width],
        ),
        (
            "item_id_embedding",
            items.weight.dims(),
            [history.num_items(), width],
        ),
    ])
}
