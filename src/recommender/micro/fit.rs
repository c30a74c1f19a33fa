//! One training step of MICRO: losses and gradients of a batch.

use burn::module::{AutodiffModule, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use burn::tensor::backend::{AutodiffBackend, Backend};

use super::{Micro, MicroGraphs};
use crate::recommender::config::MicroConfig;
use crate::recommender::contract::TrainableRecommender;
use crate::recommender::contrastive::contrastive;
use crate::recommender::features::Modality;
use crate::recommender::light_gcn::Nodes;
use crate::recommender::neighbours::{Neighbours, unit_rows};
use crate::recommender::step::{
    Batch, LossParts, Step, degree_scales, edge_gradients, indices, leaf, move_gradients,
    of_neighbours, pairwise_loss, similarities,
};

impl<B: AutodiffBackend> TrainableRecommender<B> for Micro<B> {
    fn fit(
        &self,
        graphs: &MicroGraphs<B::InnerBackend>,
        config: &MicroConfig,
        batch: &Batch,
        learn_graphs: bool,
    ) -> Step<B> {
        fit(self, graphs, config, batch, learn_graphs)
    }

    fn graph_parameters(&self) -> Vec<ParamId> {
        let mut ids = Vec::new();
        for modality in Modality::ALL {
            let projection = self.projection(modality);
            ids.push(self.features(modality).weight.id);
            ids.push(projection.weight.id);
            ids.extend(projection.bias.as_ref().map(|bias| bias.id));
        }
        ids
    }
}

/// Losses and gradients of `batch` over `graphs`.
///
/// With `learn_graphs` the gradient also reaches feature tables and projections through the learned
/// graphs: `graphs` must have been rebuilt from `micro` as it stands. The authors do so in the first
/// batch of an epoch.
pub fn fit<B: AutodiffBackend>(
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
    let pairwise = pairwise_loss(config, batch, users, items + fused.clone());

    let mut loss = pairwise.ranking.clone() + pairwise.l2.clone();
    let mut parts = vec![pairwise.ranking.inner(), pairwise.l2.inner()];
    let mut total = parts[0].clone() + parts[1].clone();
    let contrasted = |rows: Tensor<B, 2>| {
        if batch.contrasted.is_empty() {
            rows
        } else {
            rows.select(0, indices(&batch.contrasted, &device))
        }
    };
    let fused = contrasted(fused);
    for rows in modal_items {
        let rows = unit_rows(contrasted(rows));
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
        let gradients = edge_gradients(output_gradient, inputs, neighbours);
        let weights = edge_weights(micro.projected(modality), neighbours);
        let term = (weights * Tensor::from_inner(gradients)).sum() * share;
        loss = Some(match loss {
            Some(sum) => sum + term,
            None => term,
        });
    }
    let Some(loss) = loss else { return };
    let mut gradients = GradientsParams::from_grads(loss.backward(), micro);
    let ids = micro.graph_parameters();
    move_gradients(micro, &ids, &mut gradients, parameters);
}

/// The normalised weights of chosen neighbours as a function of the features they were chosen by,
/// `[items, neighbours]`.
fn edge_weights<B: Backend>(features: Tensor<B, 2>, neighbours: &Neighbours) -> Tensor<B, 2> {
    let similarities = similarities(features, neighbours);
    let scales = degree_scales(similarities.clone().sum_dim(1));
    similarities * scales.clone() * of_neighbours(scales, neighbours)
}
