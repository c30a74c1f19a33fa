//! What the training steps of all models share: a batch, its losses, and gradients by hand.
//!
//! Propagation over a fixed graph is linear, so its gradient is the product with the transposed graph. A
//! step therefore propagates without recording, differentiates what follows the propagation, and carries
//! the gradients back through the transposes; a batch's rows are recorded alone, and their gradients gathered by the
//! tables' rows. Nothing is scattered, and no backend has to know a sparse product.

use std::collections::HashSet;

use burn::module::{AutodiffModule, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::activation::log_sigmoid;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Device, Int, Tensor, TensorData};

use super::config::MicroConfig;
use super::graph::Graph;
use super::neighbours::{Neighbours, host};
use super::rows::RowSelection;

/// Triples to learn from: this user prefers this item to that one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// Rows of users.
    pub users: Vec<u32>,
    /// An item each user interacted with.
    pub positives: Vec<u32>,
    /// An item each user did not.
    pub negatives: Vec<u32>,
    /// The items of the contrastive loss; empty for all.
    pub contrasted: Vec<u32>,
}

/// The parts of the loss, on the device until someone reads them.
#[derive(Debug, Clone)]
pub struct LossParts<B: Backend> {
    /// `[5]`: see [`LossValues`] for the order.
    pub values: Tensor<B, 1>,
}

/// The parts of the loss as numbers; the contrastive parts are not weighted yet.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct LossValues {
    /// Pairwise ranking loss (BPR).
    pub pairwise: f32,
    /// Weighted L2 penalty.
    pub l2: f32,
    /// Contrastive loss of images.
    pub contrastive_image: f32,
    /// Contrastive loss of texts.
    pub contrastive_text: f32,
    /// What is minimised.
    pub total: f32,
}

impl LossValues {
    /// From the order in which [`LossParts`] keeps them.
    pub fn from_slice(values: &[f32]) -> Self {
        Self {
            pairwise: values[0],
            l2: values[1],
            contrastive_image: values[2],
            contrastive_text: values[3],
            total: values[4],
        }
    }
}

impl<B: Backend> LossParts<B> {
    /// The parts of a loss that is the pairwise loss and its penalty.
    pub(super) fn without_contrast(pairwise: &PairwiseLoss<B>) -> Self {
        let (ranking, l2) = (pairwise.ranking.clone(), pairwise.l2.clone());
        let none = ranking.zeros_like();
        let total = ranking.clone() + l2.clone();
        let values = Tensor::cat(vec![ranking, l2, none.clone(), none, total], 0);
        Self { values }
    }

    /// Waits for the device and reads the numbers.
    pub fn read(&self) -> LossValues {
        let values: Vec<f32> = self.values.to_data().iter::<f32>().collect();
        LossValues::from_slice(&values)
    }
}

/// Losses and gradients of one batch.
#[derive(Debug)]
pub struct Step<B: AutodiffBackend> {
    /// Loss parts.
    pub losses: LossParts<B::InnerBackend>,
    /// Gradients for an optimiser of the model.
    pub gradients: GradientsParams,
}

/// The loss of a batch's triples, `[1]` each, and the gradient of their sum.
#[derive(Debug, Clone)]
pub(super) struct PairwiseLoss<B: Backend> {
    /// `−log σ(s_positive − s_negative)`, the mean over triples (BPR).
    pub ranking: Tensor<B, 1>,
    /// Half the squared norm of all vectors involved, per triple, weighted.
    pub l2: Tensor<B, 1>,
    /// For the final vectors of users, `[users, width]`.
    pub user_gradient: Tensor<B, 2>,
    /// For the final vectors of items, `[items, width]`.
    pub item_gradient: Tensor<B, 2>,
}

/// The pairwise loss of final vectors of users and items, with its gradient.
///
/// Only the batch's rows are recorded; their gradients go back to the tables by [`RowSelection`].
pub(super) fn pairwise_loss<B: AutodiffBackend>(
    config: &MicroConfig,
    batch: &Batch,
    users: Tensor<B::InnerBackend, 2>,
    items: Tensor<B::InnerBackend, 2>,
) -> PairwiseLoss<B::InnerBackend> {
    let device = users.device();
    let [num_users, _] = users.dims();
    let [num_items, _] = items.dims();
    let of_users = RowSelection::new(&batch.users, num_users, &device);
    // Positive and negative items in one selection: one way back for both.
    let pairs = [batch.positives.as_slice(), &batch.negatives].concat();
    let of_items = RowSelection::new(&pairs, num_items, &device);
    let chosen = leaf::<B>(of_users.take(users));
    let pairs = leaf::<B>(of_items.take(items));
    let count = batch.positives.len();
    let positives = pairs.clone().narrow(0, 0, count);
    let negatives = pairs.clone().narrow(0, count, batch.negatives.len());

    let margins = (chosen.clone() * (positives - negatives)).sum_dim(1);
    let ranking = log_sigmoid(margins).mean().neg();
    let square = |rows: Tensor<B, 2>| (rows.clone() * rows).sum();
    let l2 = (square(chosen.clone()) + square(pairs.clone()))
        * (0.5 * config.l2_weight / batch.users.len().max(1) as f32);
    let gradients = (ranking.clone() + l2.clone()).backward();
    PairwiseLoss {
        ranking: ranking.inner(),
        l2: l2.inner(),
        user_gradient: of_users.give_back(gradient_of(&chosen, &gradients)),
        item_gradient: of_items.give_back(gradient_of(&pairs, &gradients)),
    }
}

/// Zero gradients for the given parameters, which let an optimiser's momentum go on moving them in batches
/// whose loss does not reach them.
pub fn add_idle_gradients<B: AutodiffBackend, M: AutodiffModule<B>>(
    module: &M,
    ids: &[ParamId],
    gradients: &mut GradientsParams,
) {
    module.visit(&mut Idle {
        ids: ids.iter().copied().collect(),
        gradients,
    });
}

struct Idle<'a> {
    ids: HashSet<ParamId>,
    gradients: &'a mut GradientsParams,
}

impl<B: AutodiffBackend> ModuleVisitor<B> for Idle<'_> {
    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<B, D>>) {
        if self.ids.contains(&parameter.id) {
            let zeros = parameter.val().inner().zeros_like();
            self.gradients.register(parameter.id, zeros);
        }
    }
}

/// Takes the gradients of the given parameters out of `from` and puts them into `to`.
pub fn move_gradients<B: AutodiffBackend, M: AutodiffModule<B>>(
    module: &M,
    ids: &[ParamId],
    from: &mut GradientsParams,
    to: &mut GradientsParams,
) {
    module.visit(&mut Moving {
        ids: ids.iter().copied().collect(),
        from,
        to,
    });
}

struct Moving<'a> {
    ids: HashSet<ParamId>,
    from: &'a mut GradientsParams,
    to: &'a mut GradientsParams,
}

impl<B: AutodiffBackend> ModuleVisitor<B> for Moving<'_> {
    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<B, D>>) {
        if self.ids.contains(&parameter.id)
            && let Some(gradient) = self.from.remove::<B::InnerBackend, D>(parameter.id)
        {
            self.to.register(parameter.id, gradient);
        }
    }
}

/// With `y = A x`, the gradient of the weight of edge (i, j) is the product of `y_i`'s gradient and `x_j`:
/// for every chosen neighbour, `[items, neighbours]`.
pub(super) fn edge_gradients<B: Backend>(
    output_gradient: Tensor<B, 2>,
    inputs: Tensor<B, 2>,
    neighbours: &Neighbours,
) -> Tensor<B, 2> {
    let [num_items, width] = inputs.dims();
    let places = indices(neighbours.items(), &inputs.device());
    let gathered = inputs
        .select(0, places)
        .reshape([num_items, neighbours.per_item(), width]);
    (output_gradient.unsqueeze_dim::<3>(1) * gathered)
        .sum_dim(2)
        .reshape([num_items, neighbours.per_item()])
}

/// Cosines between items and their chosen neighbours, from unit rows: `[items, neighbours]`.
pub(super) fn similarities<B: Backend>(
    directions: Tensor<B, 2>,
    neighbours: &Neighbours,
) -> Tensor<B, 2> {
    let [num_items, width] = directions.dims();
    let per_item = neighbours.per_item();
    let places = indices(neighbours.items(), &directions.device());
    let others = directions
        .clone()
        .select(0, places)
        .reshape([num_items, per_item, width]);
    (directions.unsqueeze_dim::<3>(1) * others)
        .sum_dim(2)
        .reshape([num_items, per_item])
}

/// Neighbours with a weight each and the gradient of the same edges' normalised weights, both `[items, neighbours]`.
pub(super) struct Normalisation<'a, B: Backend> {
    pub neighbours: &'a Neighbours,
    pub weights: Tensor<B, 2>,
    pub gradient: Tensor<B, 2>,
}

/// The gradient of each part's weights, where an edge's normalised weight is `w_ij · d_i · d_j` with
/// `d = degree^-1/2` and the degree sums a row's weights over all parts.
///
/// With `c_ij` the normalised weight's gradient and `W = c ∘ w`, the gradient of `d` is `W d + Wᵀ d`, two products
/// with a graph; that of the degree is `−½ d³` times it, and 0 where the degree is not above 0.
pub(super) fn normalisation_gradients<B: Backend>(
    parts: &[Normalisation<'_, B>],
    dense_cells: usize,
) -> Vec<Tensor<B, 2>> {
    let degrees = parts
        .iter()
        .map(|part| part.weights.clone().sum_dim(1))
        .reduce(|sum, degrees| sum + degrees)
        .expect("a part");
    let scales = degree_scales(degrees);
    let scale_gradient = parts
        .iter()
        .map(|part| {
            let weights = host(part.weights.clone() * part.gradient.clone());
            let edges = part.neighbours.weighted(&weights);
            let graph = Graph::new(&edges, dense_cells, &scales.device());
            graph.propagate(scales.clone()) + graph.propagate_back(scales.clone())
        })
        .reduce(|sum, gradient| sum + gradient)
        .expect("a part");
    let degree_gradient = scale_gradient * scales.clone().powi_scalar(3) * -0.5;
    parts
        .iter()
        .map(|part| {
            let others = of_neighbours(scales.clone(), part.neighbours);
            part.gradient.clone() * scales.clone() * others + degree_gradient.clone()
        })
        .collect()
}

/// The gradient of unit rows, `[items, width]`, from that of the cosines to chosen neighbours, `[items, neighbours]`:
/// with `G` these gradients as a graph, `G x + Gᵀ x`.
pub(super) fn direction_gradient<B: Backend>(
    directions: Tensor<B, 2>,
    neighbours: &Neighbours,
    gradient: Tensor<B, 2>,
    dense_cells: usize,
) -> Tensor<B, 2> {
    let edges = neighbours.weighted(&host(gradient));
    let graph = Graph::new(&edges, dense_cells, &directions.device());
    graph.propagate(directions.clone()) + graph.propagate_back(directions)
}

/// `degree^-1/2` of `[items, 1]`, 0 where the degree is not above 0.
pub(super) fn degree_scales<B: Backend>(degrees: Tensor<B, 2>) -> Tensor<B, 2> {
    let isolated = degrees.clone().lower_equal_elem(0.0);
    degrees
        .mask_fill(isolated.clone(), 1.0)
        .sqrt()
        .recip()
        .mask_fill(isolated, 0.0)
}

/// A value per item, for each item's chosen neighbours: `[items, 1]` to `[items, neighbours]`.
pub(super) fn of_neighbours<B: Backend>(
    values: Tensor<B, 2>,
    neighbours: &Neighbours,
) -> Tensor<B, 2> {
    let places = indices(neighbours.items(), &values.device());
    let [num_items, _] = values.dims();
    values
        .select(0, places)
        .reshape([num_items, neighbours.per_item()])
}

/// A tensor whose gradient is asked for.
pub(super) fn leaf<B: AutodiffBackend>(values: Tensor<B::InnerBackend, 2>) -> Tensor<B, 2> {
    Tensor::from_inner(values).require_grad()
}

/// The gradient of a leaf; zeros where the loss does not depend on it.
pub(super) fn gradient_of<B: AutodiffBackend>(
    leaf: &Tensor<B, 2>,
    gradients: &B::Gradients,
) -> Tensor<B::InnerBackend, 2> {
    leaf.grad(gradients)
        .unwrap_or_else(|| leaf.clone().inner().zeros_like())
}

/// Row numbers on a device.
pub(super) fn indices<B: Backend>(rows: &[u32], device: &Device<B>) -> Tensor<B, 1, Int> {
    let rows: Vec<i32> = rows.iter().map(|&row| row as i32).collect();
    let count = rows.len();
    Tensor::from_data(TensorData::new(rows, [count]), device)
}
