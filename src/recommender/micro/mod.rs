//! MICRO: the network and its forward pass; [`graphs`] builds what it propagates over, [`fit`] is a training step.

mod fit;
mod graphs;

use burn::module::{Initializer, Module};
use burn::nn::{Embedding, Linear, Tanh};
use burn::tensor::activation::softmax;
use burn::tensor::{Device, Tensor, backend::Backend};

use super::config::{MicroConfig, RecommenderError, RecommenderKind};
use super::contract::{Embeddings, Recommender, check_modal_tables};
use super::features::{ItemFeatures, Modality};
use super::initial::{InitialValues, embedding};
use super::interactions::Interactions;
use super::light_gcn::Nodes;
use super::neighbours::unit_rows;

pub use fit::fit;
pub use graphs::{ItemGraph, MicroGraphs};

/// Trained parameters; fields carry the names of the authors' code.
#[derive(Module, Debug)]
pub struct Micro<B: Backend> {
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
    /// Scores each modality of an item for the fusion: linear, tanh, linear without bias.
    pub query: (Linear<B>, Tanh, Linear<B>),
}

/// Two modalities' item vectors as one.
#[derive(Debug, Clone)]
pub struct Fusion<B: Backend> {
    /// Share of each modality, `[items, 2]`.
    pub attention: Tensor<B, 2>,
    /// The shared item vectors `h`, `[items, width]`.
    pub fused: Tensor<B, 2>,
}

/// All stages of a forward pass.
#[derive(Debug, Clone)]
pub struct MicroEmbeddings<B: Backend> {
    /// Final user vectors, `[users, width]`.
    pub users: Tensor<B, 2>,
    /// Final item vectors, `[items, width]`.
    pub items: Tensor<B, 2>,
    /// Item vectors after LightGCN alone.
    pub collaborative_items: Tensor<B, 2>,
    /// Item vectors after the image graph.
    pub image_items: Tensor<B, 2>,
    /// Item vectors after the text graph.
    pub text_items: Tensor<B, 2>,
    /// The fusion of both.
    pub fusion: Fusion<B>,
}

impl<B: Backend> Micro<B> {
    /// Fresh parameters: ids uniform after Xavier, feature tables as given, linear layers uniform within
    /// `±1/√inputs`. All numbers come from `config.seed`, on the host.
    pub fn new(
        config: &MicroConfig,
        num_users: usize,
        features: &ItemFeatures,
        device: &Device<B>,
    ) -> Self {
        let width = config.embedding_width;
        let mut initial = InitialValues::new(config.seed, device);
        Self {
            user_embedding: initial.table(num_users, width),
            item_id_embedding: initial.table(features.num_items(), width),
            image_embedding: embedding(features.image.tensor(device)),
            text_embedding: embedding(features.text.tensor(device)),
            image_trs: initial.linear(features.image.width(), width, true),
            text_trs: initial.linear(features.text.width(), width, true),
            query: (
                initial.linear(width, width, true),
                Tanh::new(),
                initial.linear(width, 1, false),
            ),
        }
    }

    /// Parameters of the right shapes, all zero: a place to load trained ones into.
    pub fn zeros(
        config: &MicroConfig,
        num_users: usize,
        num_items: usize,
        image_width: usize,
        text_width: usize,
        device: &Device<B>,
    ) -> Self {
        let width = config.embedding_width;
        let table = |rows: usize, columns: usize| Embedding {
            weight: Initializer::Zeros.init([rows, columns], device),
        };
        let dense = |inputs: usize, outputs: usize, bias: bool| Linear {
            weight: Initializer::Zeros.init([inputs, outputs], device),
            bias: bias.then(|| Initializer::Zeros.init([outputs], device)),
        };
        Self {
            user_embedding: table(num_users, width),
            item_id_embedding: table(num_items, width),
            image_embedding: table(num_items, image_width),
            text_embedding: table(num_items, text_width),
            image_trs: dense(image_width, width, true),
            text_trs: dense(text_width, width, true),
            query: (
                dense(width, width, true),
                Tanh::new(),
                dense(width, 1, false),
            ),
        }
    }

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

    /// Softmax-weighted sum of both modalities' item vectors `[items, width]`.
    pub fn fuse(&self, image_items: Tensor<B, 2>, text_items: Tensor<B, 2>) -> Fusion<B> {
        let query = |items: Tensor<B, 2>| {
            self.query
                .2
                .forward(self.query.1.forward(self.query.0.forward(items)))
        };
        let scores = Tensor::cat(
            vec![query(image_items.clone()), query(text_items.clone())],
            1,
        );
        let attention = softmax(scores, 1);
        let fused = image_items * attention.clone().narrow(1, 0, 1)
            + text_items * attention.clone().narrow(1, 1, 1);
        Fusion { attention, fused }
    }

    /// The forward pass over fixed graphs. For training, see [`fit`].
    pub fn embeddings(&self, graphs: &MicroGraphs<B>) -> MicroEmbeddings<B> {
        let ids = self.item_id_embedding.weight.val();
        let nodes = graphs.interactions.propagate(Nodes {
            users: self.user_embedding.weight.val(),
            items: ids.clone(),
        });
        let [image_items, text_items] = Modality::ALL.map(|modality| {
            let graph = &graphs.item_graph(modality).graph;
            (0..graphs.num_item_layers).fold(ids.clone(), |items, _| graph.propagate(items))
        });
        let fusion = self.fuse(image_items.clone(), text_items.clone());
        MicroEmbeddings {
            users: nodes.users,
            items: nodes.items.clone() + unit_rows(fusion.fused.clone()),
            collaborative_items: nodes.items,
            image_items,
            text_items,
            fusion,
        }
    }
}

impl<B: Backend> Recommender<B> for Micro<B> {
    const KIND: RecommenderKind = RecommenderKind::Micro;
    type Graphs = MicroGraphs<B>;

    fn initial(
        config: &MicroConfig,
        history: &Interactions,
        features: &ItemFeatures,
        device: &Device<B>,
    ) -> Self {
        Self::new(config, history.num_users(), features, device)
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
    ) -> MicroGraphs<B> {
        MicroGraphs::new(config, history, features, self, device)
    }

    fn rebuild(&self, config: &MicroConfig, graphs: &mut MicroGraphs<B>) {
        graphs.rebuild(config, self);
    }

    fn embed(&self, graphs: &MicroGraphs<B>) -> Embeddings<B> {
        let output = self.embeddings(graphs);
        Embeddings {
            users: output.users,
            items: output.items,
        }
    }
}
