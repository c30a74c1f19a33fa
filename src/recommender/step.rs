//! One training step of MICRO: losses and gradients of a batch.
//!
//! Propagation over a fixed graph is linear, so its gradient is the product with the transposed graph.
//! The step therefore propagates without recording, differentiates what follows the propagation, and
//! carries the gradients back through the transposes. Nothing is scattered over edges, and no backend
//! has to know a sparse product.

use burn::module::{AutodiffModule, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::activation::log_sigmoid;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Device, Int, Tensor, TensorData};

use super::config::MicroConfig;
use super::contrastive::contrastive;
use super::light_gcn::Nodes;
use super::micro::{Micro, MicroGraphs, Modality};
use super::neighbours::{Neighbours, unit_rows};

/// Triples to learn from: this user prefers this item to that one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// Rows of users.
    pub users: Vec<u32>,
    /// An item each user interacted with.
    pub positives: Vec<u32>,
    /// An item each user did not.
    pub negatives: Vec<u32>,
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
    /// Gradients for an optimiser of [`Micro`].
    pub gradients: GradientsParams,
}

/// Losses and gradients of `batch` over `graphs`.
///
/// With `learn_graphs` the gradient also reaches feature tables and projections through the learned
/// graphs: `graphs` must have been rebuilt from `micro` as it stands. The authors do so in the first
/// batch of an epoch.
pub fn step<B: AutodiffBackend>(
    micro: &Micro<B>,
    graphs: &MicroGraphs<B::InnerBackend>,
    config: &MicroConfig,
    batch: &Batch,
    learn_graphs: bool,
) -> Step<B> {
    let plain = micro.valid();
    let ids = plain.item_id_embedding.weight.val();
    let nodes = graphs.interactions.propagate(Nodes {
        users: plain.user_embedding.weight.val(),
        items: ids.clone(),
    });
    // The inputs and the output of every propagation over an item graph.
    let item_layers = Modality::ALL.map(|modality| {
        let graph = &graphs.item_graph(modality).graph;
        let mut layers = vec![ids.clone()];
        for layer in 0..graphs.num_item_layers {
            layers.push(graph.propagate(layers[layer].clone()));
        }
        layers
    });

    let users = leaf::<B>(nodes.users);
    let items = leaf::<B>(nodes.items);
    let [image_items, text_items] = item_layers
        .each_ref()
        .map(|layers| leaf::<B>(layers[graphs.num_item_layers].clone()));
    let (loss, losses) = objective(
        micro,
        config,
        batch,
        users.clone(),
        items.clone(),
        [image_items.clone(), text_items.clone()],
    );
    let gradients = loss.backward();
    let gradient = |tensor: &Tensor<B, 2>| {
        tensor
            .grad(&gradients)
            .unwrap_or_else(|| tensor.clone().inner().zeros_like())
    };

    let back = graphs.interactions.propagate_back(Nodes {
        users: gradient(&users),
        items: gradient(&items),
    });
    let mut id_gradient = back.items;
    let mut graph_gradients = Vec::new();
    for (modality, (output, layers)) in Modality::ALL
        .into_iter()
        .zip([&image_items, &text_items].into_iter().zip(&item_layers))
    {
        let graph = &graphs.item_graph(modality).graph;
        let mut carried = gradient(output);
        for layer in (0..graphs.num_item_layers).rev() {
            if learn_graphs {
                graph_gradients.push((modality, carried.clone(), layers[layer].clone()));
            }
            carried = graph.propagate_back(carried);
        }
        id_gradient = id_gradient + carried;
    }

    let mut parameters = GradientsParams::from_grads(gradients, micro);
    parameters.register(micro.user_embedding.weight.id, back.users);
    parameters.register(micro.item_id_embedding.weight.id, id_gradient);
    if learn_graphs && config.original_weight < 1.0 {
        add_graph_gradients(micro, graphs, config, graph_gradients, &mut parameters);
    }
    Step {
        losses,
        gradients: parameters,
    }
}

/// Zero gradients for feature tables and projections, which let an optimiser's momentum go on moving
/// them in batches whose loss does not reach them.
pub fn add_idle_gradients<B: AutodiffBackend>(micro: &Micro<B>, gradients: &mut GradientsParams) {
    for modality in Modality::ALL {
        let projection = micro.projection(modality);
        for parameter in [&micro.features(modality).weight, &projection.weight] {
            gradients.register(parameter.id, parameter.val().inner().zeros_like());
        }
        if let Some(bias) = &projection.bias {
            gradients.register(bias.id, bias.val().inner().zeros_like());
        }
    }
}

/// What follows the propagation. Returns what to differentiate and the values of its parts.
fn objective<B: AutodiffBackend>(
    micro: &Micro<B>,
    config: &MicroConfig,
    batch: &Batch,
    users: Tensor<B, 2>,
    items: Tensor<B, 2>,
    modal_items: [Tensor<B, 2>; 2],
) -> (Tensor<B, 1>, LossParts<B::InnerBackend>) {
    let device = users.device();
    let [image_items, text_items] = modal_items.clone();
    let fused = unit_rows(micro.fuse(image_items, text_items).fused);
    let items = items + fused.clone();

    let chosen = users.select(0, indices(&batch.users, &device));
    let positives = items.clone().select(0, indices(&batch.positives, &device));
    let negatives = items.select(0, indices(&batch.negatives, &device));
    let margins = (chosen.clone() * (positives.clone() - negatives.clone())).sum_dim(1);
    let pairwise = log_sigmoid(margins).mean().neg();
    let square = |rows: Tensor<B, 2>| (rows.clone() * rows).sum();
    let l2 = (square(chosen) + square(positives) + square(negatives))
        * (0.5 * config.l2_weight / batch.users.len().max(1) as f32);

    let mut loss = pairwise.clone() + l2.clone();
    let mut parts = vec![pairwise.inner(), l2.inner()];
    let mut total = parts[0].clone() + parts[1].clone();
    for rows in modal_items {
        let rows = unit_rows(rows);
        let result = contrastive(
            rows.clone().inner(),
            fused.clone().inner(),
            config.temperature,
            config.block_rows,
        );
        total = total + result.loss.clone() * config.contrastive_weight;
        parts.push(result.loss);
        // A term with the known gradient; its value means nothing.
        let carrier = (rows * Tensor::from_inner(result.modality_gradient)).sum()
            + (fused.clone() * Tensor::from_inner(result.fused_gradient)).sum();
        loss = loss + carrier * config.contrastive_weight;
    }
    parts.push(total);
    let values = Tensor::cat(parts, 0);
    (loss, LossParts { values })
}

/// Adds the gradients that reach feature tables and projections through the learned graphs' weights.
///
/// With `y = A x`, the gradient of the weight of edge (i, j) is the product of `y_i`'s gradient and `x_j`.
fn add_graph_gradients<B: AutodiffBackend>(
    micro: &Micro<B>,
    graphs: &MicroGraphs<B::InnerBackend>,
    config: &MicroConfig,
    propagations: Vec<(
        Modality,
        Tensor<B::InnerBackend, 2>,
        Tensor<B::InnerBackend, 2>,
    )>,
    parameters: &mut GradientsParams,
) {
    let share = 1.0 - config.original_weight;
    let mut loss: Option<Tensor<B, 1>> = None;
    for (modality, output_gradient, inputs) in propagations {
        let neighbours = &graphs.item_graph(modality).learned;
        let [num_items, width] = inputs.dims();
        let places = indices(neighbours.items(), &inputs.device());
        let gathered = inputs
            .select(0, places)
            .reshape([num_items, neighbours.per_item(), width]);
        let edge_gradients = (output_gradient.unsqueeze_dim::<3>(1) * gathered)
            .sum_dim(2)
            .reshape([num_items, neighbours.per_item()]);
        let weights = edge_weights(micro.projected(modality), neighbours);
        let term = (weights * Tensor::from_inner(edge_gradients)).sum() * share;
        loss = Some(match loss {
            Some(sum) => sum + term,
            None => term,
        });
    }
    let Some(loss) = loss else { return };
    let mut gradients = GradientsParams::from_grads(loss.backward(), micro);
    let mut take = |id: ParamId| {
        if let Some(gradient) = gradients.remove::<B::InnerBackend, 2>(id) {
            parameters.register(id, gradient);
        }
    };
    for modality in Modality::ALL {
        take(micro.features(modality).weight.id);
        take(micro.projection(modality).weight.id);
    }
    for modality in Modality::ALL {
        if let Some(bias) = &micro.projection(modality).bias
            && let Some(gradient) = gradients.remove::<B::InnerBackend, 1>(bias.id)
        {
            parameters.register(bias.id, gradient);
        }
    }
}

/// The normalised weights of chosen neighbours as a function of the features they were chosen by,
/// `[items, neighbours]`.
fn edge_weights<B: Backend>(features: Tensor<B, 2>, neighbours: &Neighbours) -> Tensor<B, 2> {
    let [num_items, width] = features.dims();
    let per_item = neighbours.per_item();
    let places = indices(neighbours.items(), &features.device());
    let directions = unit_rows(features);
    let others = directions
        .clone()
        .select(0, places.clone())
        .reshape([num_items, per_item, width]);
    let similarities = (directions.unsqueeze_dim::<3>(1) * others)
        .sum_dim(2)
        .reshape([num_items, per_item]);
    let degrees = similarities.clone().sum_dim(1);
    let isolated = degrees.clone().lower_equal_elem(0.0);
    let scales = degrees
        .mask_fill(isolated.clone(), 1.0)
        .sqrt()
        .recip()
        .mask_fill(isolated, 0.0);
    let other_scales = scales
        .clone()
        .select(0, places)
        .reshape([num_items, per_item]);
    similarities * scales * other_scales
}

fn leaf<B: AutodiffBackend>(values: Tensor<B::InnerBackend, 2>) -> Tensor<B, 2> {
    Tensor::from_inner(values).require_grad()
}

fn indices<B: Backend>(rows: &[u32], device: &Device<B>) -> Tensor<B, 1, Int> {
    let rows: Vec<i32> = rows.iter().map(|&row| row as i32).collect();
    let count = rows.len();
    Tensor::from_data(TensorData::new(rows, [count]), device)
}
