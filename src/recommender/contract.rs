//! What every ranking model can do, whatever it learns from.
//!
//! A model is its parameters; the graphs it propagates over are built from a catalogue and handed in, so that
//! one set serves training, early stopping and judging. Scores are dot products of final vectors.

use std::fmt::Debug;
use std::ops::Range;

use burn::module::{AutodiffModule, Module, ParamId};
use burn::nn::Embedding;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Device, Tensor};

use super::config::{MicroConfig, RecommenderError, RecommenderKind};
use super::features::ItemFeatures;
use super::interactions::Interactions;
use super::step::{Batch, Step};
use crate::nn::product::product;

/// Final vectors, whose dot product is the score.
#[derive(Debug, Clone)]
pub struct Embeddings<B: Backend> {
    /// `[users, width]`.
    pub users: Tensor<B, 2>,
    /// `[items, width]`.
    pub items: Tensor<B, 2>,
}

impl<B: Backend> Embeddings<B> {
    /// The scores of all items for a range of users, `[users, items]`.
    pub fn scores(&self, users: Range<usize>) -> Tensor<B, 2> {
        let users = self.users.clone().slice([users]);
        product(users, self.items.clone().transpose())
    }
}

/// A ranking model's parameters and what is done with them.
pub trait Recommender<B: Backend>: Module<B> {
    /// Which one it is.
    const KIND: RecommenderKind;
    /// Whether training changes anything.
    const LEARNS: bool = true;
    /// What it propagates over.
    type Graphs: Clone + Debug + Send;

    /// Fresh parameters for a catalogue, all from `config.seed`.
    fn initial(
        config: &MicroConfig,
        history: &Interactions,
        features: &ItemFeatures,
        device: &Device<B>,
    ) -> Self;

    /// Checks that these parameters belong to the given catalogue and configuration.
    ///
    /// # Errors
    /// [`RecommenderError::Shape`] naming the first parameter that does not fit.
    fn check_shapes(
        &self,
        config: &MicroConfig,
        history: &Interactions,
        features: &ItemFeatures,
    ) -> Result<(), RecommenderError>;

    /// The graphs of a catalogue, the learned ones from the present parameters.
    fn graphs(
        &self,
        config: &MicroConfig,
        history: &Interactions,
        features: &ItemFeatures,
        device: &Device<B>,
    ) -> Self::Graphs;

    /// Builds the learned graphs again from the present parameters; nothing where none is learned.
    fn rebuild(&self, _config: &MicroConfig, _graphs: &mut Self::Graphs) {}

    /// Final vectors of everyone and everything.
    fn embed(&self, graphs: &Self::Graphs) -> Embeddings<B>;
}

/// The graphs of a trained model, which record nothing.
pub type FrozenGraphs<B, R> = <<R as AutodiffModule<B>>::InnerModule as Recommender<
    <B as AutodiffBackend>::InnerBackend,
>>::Graphs;

/// A ranking model that learns from triples.
pub trait TrainableRecommender<B: AutodiffBackend>:
    Recommender<B> + AutodiffModule<B, InnerModule: Recommender<B::InnerBackend>>
{
    /// Losses and gradients of one batch. With `learn_graphs` the gradient also reaches what the learned
    /// graphs were built from: `graphs` must have been rebuilt from the parameters as they stand.
    fn fit(
        &self,
        graphs: &FrozenGraphs<B, Self>,
        config: &MicroConfig,
        batch: &Batch,
        learn_graphs: bool,
    ) -> Step<B>;

    /// Parameters that a batch reaches through learned graphs alone.
    fn graph_parameters(&self) -> Vec<ParamId> {
        Vec::new()
    }
}

/// Refuses the first parameter whose shape is not the expected one.
pub(super) fn check_parameters(
    parameters: &[(&'static str, [usize; 2], [usize; 2])],
) -> Result<(), RecommenderError> {
    for &(name, found, expected) in parameters {
        if found != expected {
            return Err(RecommenderError::Shape {
                name,
                expected,
                found,
            });
        }
    }
    Ok(())
}

/// As [`check_parameters`], for the tables of users, items, images and texts in this order.
pub(super) fn check_modal_tables<B: Backend>(
    [users, items, images, texts]: [&Embedding<B>; 4],
    config: &MicroConfig,
    history: &Interactions,
    features: &ItemFeatures,
) -> Result<(), RecommenderError> {
    let (width, num_items) = (config.embedding_width, history.num_items());
    check_parameters(&[
        (
            "user_embedding",
            users.weight.dims(),
            [history.num_users(), width],
        ),
        ("item_id_embedding", items.weight.dims(), [num_items, width]),
        (
            "image_embedding",
            images.weight.dims(),
            [num_items, features.image.width()],
        ),
        (
            "text_embedding",
            texts.weight.dims(),
            [num_items, features.text.width()],
        ),
    ])
}
