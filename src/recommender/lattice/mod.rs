//! LATTICE (Zhang et al., MM 2021): one graph between items, the sum of the modal graphs with two learned
//! shares, over which item ids are propagated.
//!
//! It differs from MICRO, its successor by the same authors, in three ways: modalities are summed before the
//! propagation in place of fused after it, the shares are the same for all items, and there is no contrastive
//! loss. The learned parts are summed first and normalised then; the given parts the other way round.

mod fit;
mod graphs;

use burn::module::{Module, Param};
use burn::nn::{Embedding, Linear};
use burn::tensor::activation::softmax;
use burn::tensor::{Device, Tensor, backend::Backend};

use super::config::{MicroConfig, RecommenderError, RecommenderKind};
use super::contract::{Embeddings, Recommender, check_modal_tables};
use super::features::{ItemFeatures, Modality};
use super::initial::{InitialValues, embedding};
use super::interactions::Interactions;
use super::light_gcn::Nodes;
use super::neighbours::unit_rows;

pub use graphs::LatticeGraphs;

/// Trained parameters; fields carry the names of the authors' code.
#[derive(Module, Debug)]
pub struct Lattice<B: Backend> {
    /// `[users, width]`.
    pub user_embedding: Embedding<B>,
    /// `[items, width]`: what is propagated over every graph.
    pub item_id_embedding: Embedding<B>,
    /// The image features, trained further, `[items, visual width]`.
    pub image_embedding: Embedding<B>,
    /// The text features, trained further, `[items, textual width]`.
    pub text_embedding: Embedding<B>,
    /// Projection of image features in which the learned graph looks for neighbours.
    pub image_trs: Linear<B>,
    /// The same for text features.
    pub text_trs: Linear<B>,
    /// Shares of the modalities before their softmax, `[2]`.
    pub modal_weight: Param<Tensor<B, 1>>,
}

impl<B: Backend> Lattice<B> {
    /// The trained feature table of a modality.
    pub fn features(&self, modality: Modality) -> &Embedding<B> {
        match modality {
            Modality::Image => &self.image_embedding,
            Modality::Text => &self.text_embedding,
        }
    }

    /// The projection of a modality's features.
    pub fn projection(&self, modality: Modality) -> &Linear<B> {
        match modality {
            Modality::Image => &self.image_trs,
            Modality::Text => &self.text_trs,
        }
    }

    /// The feature rows in which the learned graph looks for neighbours, `[items, width]`.
    pub fn projected(&self, modality: Modality) -> Tensor<B, 2> {
        self.projection(modality)
            .forward(self.features(modality).weight.val())
    }

    /// The share of each modality, `[2]`.
    pub fn shares(&self) -> Tensor<B, 1> {
        softmax(self.modal_weight.val(), 0)
    }
}

impl<B: Backend> Recommender<B> for Lattice<B> {
    const KIND: RecommenderKind = RecommenderKind::Lattice;
    type Graphs = LatticeGraphs<B>;

    fn initial(
        config: &MicroConfig,
        history: &Interactions,
        features: &ItemFeatures,
        device: &Device<B>,
    ) -> Self {
        let width = config.embedding_width;
        let mut initial = InitialValues::new(config.seed, device);
        Self {
            user_embedding: initial.table(history.num_users(), width),
            item_id_embedding: initial.table(history.num_items(), width),
            image_embedding: embedding(features.image.tensor(device)),
            text_embedding: embedding(features.text.tensor(device)),
            image_trs: initial.linear(features.image.width(), width, true),
            text_trs: initial.linear(features.text.width(), width, true),
            modal_weight: Param::from_tensor(Tensor::full([2], 0.5, device)),
        }
    }

    fn check_shapes(
        &self,
        config: &MicroConfig,
        history: &Interactions,
        features: &ItemFeatures,
    ) -> Result<(), RecommenderError> {
        let tables = [
            &self.user_embedding,
            &self.item_id_embedding,
            &self.image_embedding,
            &self.text_embedding,
        ];
        check_modal_tables(tables, config, history, features)
    }

    fn graphs(
        &self,
        config: &MicroConfig,
        history: &Interactions,
        features: &ItemFeatures,
        device: &Device<B>,
    ) -> LatticeGraphs<B> {
        LatticeGraphs::new(config, history, features, self, device)
    }

    fn rebuild(&self, config: &MicroConfig, graphs: &mut LatticeGraphs<B>) {
        graphs.rebuild(config, self);
    }

    fn embed(&self, graphs: &LatticeGraphs<B>) -> Embeddings<B> {
        let ids = self.item_id_embedding.weight.val();
        let nodes = graphs.interactions.propagate(Nodes {
            users: self.user_embedding.weight.val(),
            items: ids.clone(),
        });
        let modal = (0..graphs.num_item_layers).fold(ids, |rows, _| graphs.graph.propagate(rows));
        Embeddings {
            users: nodes.users,
            items: nodes.items + unit_rows(modal),
        }
    }
}
