//! One training step of MICRO: losses and gradients of a batch.

use burn::module::{AutodiffModule, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use burn::tensor::backend::AutodiffBackend;

use super::{Micro, MicroGraphs};
use crate::recommender::config::MicroConfig;
use crate::recommender::contract::TrainableRecommender;
use crate::recommender::contrastive::contrastive;
use crate::recommender::features::Modality;
use crate::recommender::light_gcn::Nodes;
use crate::recommender::neighbours::unit_rows;
use crate::recommender::rows::RowSelection;
use crate::recommender::step::{
    Batch, LossParts, Normalisation, Step, direction_gradient, edge_gradients, gradient_of, leaf,
    move_gradients, normalisation_gradients, pairwise_loss, similarities,
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

    let [image_items, text_items] = item_layers
        .each_ref()
        .map(|layers| leaf::<B>(layers[graphs.num_item_layers].clone()));
    let objective = objective(
        micro,
        config,
        batch,
        nodes,
        [image_items.clone(), text_items.clone()],
    );
    let gradients = objective.modal_loss.backward();
    let back = graphs.interactions.propagate_back(objective.gradients);
    let mut id_gradient = back.items;
    let mut graph_gradients = Vec::new();
    for (modality, (output, layers)) in Modality::ALL
        .into_iter()
        .zip([&image_items, &text_items].into_iter().zip(&item_layers))
    {
        let graph = &graphs.item_graph(modality).graph;
        let mut carried = gradient_of(output, &gradients);
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
        losses: objective.losses,
        gradients: parameters,
    }
}

/// What follows the propagation.
struct Objective<B: AutodiffBackend> {
    losses: LossParts<B::InnerBackend>,
    /// For the vectors of users and items after LightGCN.
    gradients: Nodes<B::InnerBackend>,
    /// What to differentiate for the modal item vectors and the fusion. It has the loss's gradient; its value
    /// means nothing.
    modal_loss: Tensor<B, 1>,
}

fn objective<B: AutodiffBackend>(
    micro: &Micro<B>,
    config: &MicroConfig,
    batch: &Batch,
    nodes: Nodes<B::InnerBackend>,
    modal_items: [Tensor<B, 2>; 2],
) -> Objective<B> {
    let [image_items, text_items] = modal_items.clone();
    let fused = unit_rows(micro.fuse(image_items, text_items).fused);
    let fused_values = fused.clone().inner();
    let items = nodes.items + fused_values.clone();
    let [num_items, _] = items.dims();
    let device = items.device();
    let pairwise = pairwise_loss::<B>(config, batch, nodes.users, items);

    let contrasted = (!batch.contrasted.is_empty())
        .then(|| RowSelection::new(&batch.contrasted, num_items, &device));
    let take = |table: Tensor<B::InnerBackend, 2>| match &contrasted {
        Some(rows) => rows.take(table),
        None => table,
    };
    let give_back = |gradient: Tensor<B::InnerBackend, 2>| match &contrasted {
        Some(rows) => rows.give_back(gradient),
        None => gradient,
    };
    let chosen = take(fused_values);
    let mut fused_gradient = pairwise.item_gradient.clone();
    let mut modal_loss: Option<Tensor<B, 1>> = None;
    let mut parts = vec![pairwise.ranking, pairwise.l2];
    let mut total = parts[0].clone() + parts[1].clone();
    for rows in modal_items {
        let rows = unit_rows(rows);
        let result = contrastive(
            take(rows.clone().inner()),
            chosen.clone(),
            config.temperature,
            config.block_rows,
        );
        total = total + result.loss.clone() * config.contrastive_weight;
        parts.push(result.loss);
        let gradient = give_back(result.modality_gradient) * config.contrastive_weight;
        fused_gradient =
            fused_gradient + give_back(result.fused_gradient) * config.contrastive_weight;
        let term = (rows * Tensor::from_inner(gradient)).sum();
        modal_loss = Some(match modal_loss {
            Some(sum) => sum + term,
            None => term,
        });
    }
    parts.push(total);
    let fused_term = (fused * Tensor::from_inner(fused_gradient)).sum();
    Objective {
        losses: LossParts {
            values: Tensor::cat(parts, 0),
        },
        gradients: Nodes {
            users: pairwise.user_gradient,
            items: pairwise.item_gradient,
        },
        modal_loss: modal_loss.map_or(fused_term.clone(), |sum| sum + fused_term),
    }
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
    for modality in Modality::ALL {
        let neighbours = &graphs.item_graph(modality).learned;
        let of_edges = propagations
            .iter()
            .filter(|(other, ..)| *other == modality)
            .map(|(_, output, inputs)| edge_gradients(output.clone(), inputs.clone(), neighbours))
            .reduce(|sum, gradient| sum + gradient);
        let Some(of_edges) = of_edges else { continue };
        let directions = unit_rows(micro.projected(modality));
        let values = directions.clone().inner();
        let part = Normalisation {
            neighbours,
            weights: similarities(values.clone(), neighbours),
            gradient: of_edges * share,
        };
        let found = normalisation_gradients(&[part], config.dense_cells).remove(0);
        let gradient = direction_gradient(values, neighbours, found, config.dense_cells);
        let term = (directions * Tensor::from_inner(gradient)).sum();
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
