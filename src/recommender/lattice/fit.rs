//! One training step of LATTICE: losses and gradients of a batch.

use burn::module::{AutodiffModule, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Tensor, TensorData};

use super::{Lattice, LatticeGraphs};
use crate::recommender::config::MicroConfig;
use crate::recommender::contract::TrainableRecommender;
use crate::recommender::features::Modality;
use crate::recommender::graph::Edges;
use crate::recommender::light_gcn::Nodes;
use crate::recommender::neighbours::{Neighbours, unit_rows};
use crate::recommender::step::{
    Batch, LossParts, Normalisation, Step, direction_gradient, edge_gradients, gradient_of, leaf,
    move_gradients, normalisation_gradients, pairwise_loss, similarities,
};

impl<B: AutodiffBackend> TrainableRecommender<B> for Lattice<B> {
    fn fit(
        &self,
        graphs: &LatticeGraphs<B::InnerBackend>,
        config: &MicroConfig,
        batch: &Batch,
        learn_graphs: bool,
    ) -> Step<B> {
        let plain = self.valid();
        let ids = plain.item_id_embedding.weight.val();
        let nodes = graphs.interactions.propagate(Nodes {
            users: plain.user_embedding.weight.val(),
            items: ids.clone(),
        });
        let mut layers = vec![ids];
        for layer in 0..graphs.num_item_layers {
            layers.push(graphs.graph.propagate(layers[layer].clone()));
        }

        let modal = leaf::<B>(layers[graphs.num_item_layers].clone());
        let directions = unit_rows(modal.clone());
        let final_items = nodes.items + directions.clone().inner();
        let pairwise = pairwise_loss::<B>(config, batch, nodes.users, final_items);
        let losses = LossParts::without_contrast(&pairwise);
        // A term with the known gradient; its value means nothing.
        let carrier = (directions * Tensor::from_inner(pairwise.item_gradient.clone())).sum();
        let gradients = carrier.backward();

        let back = graphs.interactions.propagate_back(Nodes {
            users: pairwise.user_gradient,
            items: pairwise.item_gradient,
        });
        let mut carried = gradient_of(&modal, &gradients);
        let mut propagations = Vec::new();
        for layer in (0..graphs.num_item_layers).rev() {
            propagations.push((carried.clone(), layers[layer].clone()));
            carried = graphs.graph.propagate_back(carried);
        }
        let mut parameters = GradientsParams::new();
        parameters.register(self.user_embedding.weight.id, back.users);
        parameters.register(self.item_id_embedding.weight.id, back.items + carried);
        if learn_graphs && !propagations.is_empty() {
            add_graph_gradients(self, graphs, config, propagations, &mut parameters);
        }
        Step {
            losses,
            gradients: parameters,
        }
    }

    fn graph_parameters(&self) -> Vec<ParamId> {
        let mut ids = vec![self.modal_weight.id];
        for modality in Modality::ALL {
            let projection = self.projection(modality);
            ids.push(self.features(modality).weight.id);
            ids.push(projection.weight.id);
            ids.extend(projection.bias.as_ref().map(|bias| bias.id));
        }
        ids
    }
}

/// Adds the gradients that reach shares, feature tables and projections through the item graph's weights.
fn add_graph_gradients<B: AutodiffBackend>(
    lattice: &Lattice<B>,
    graphs: &LatticeGraphs<B::InnerBackend>,
    config: &MicroConfig,
    propagations: Vec<(Tensor<B::InnerBackend, 2>, Tensor<B::InnerBackend, 2>)>,
    parameters: &mut GradientsParams,
) {
    let shares = lattice.shares();
    let share = |place: usize| shares.clone().narrow(0, place, 1).reshape([1, 1]);
    let of_edges = |neighbours: &Neighbours| {
        propagations
            .iter()
            .map(|(output, inputs)| edge_gradients(output.clone(), inputs.clone(), neighbours))
            .reduce(|sum, gradient| sum + gradient)
            .expect("a propagation")
    };
    let mut loss = Tensor::<B, 1>::zeros([1], &shares.device());
    for (place, original) in graphs.original.iter().enumerate() {
        let by_edge = of_edges(original);
        let given = given_weights(original, &graphs.original_edges[place], &by_edge);
        let term = share(place) * Tensor::from_inner((by_edge * given).sum().reshape([1, 1]));
        loss = loss + term.reshape([1]) * config.original_weight;
    }

    // The learned graph: similarities by share, scaled by the degrees of their sum.
    let directions = Modality::ALL.map(|modality| unit_rows(lattice.projected(modality)));
    let cosines =
        [0, 1].map(|place| similarities(directions[place].clone().inner(), &graphs.learned[place]));
    let parts = [0, 1].map(|place| Normalisation {
        neighbours: &graphs.learned[place],
        weights: cosines[place].clone() * share(place).inner(),
        gradient: of_edges(&graphs.learned[place]) * (1.0 - config.original_weight),
    });
    let found = normalisation_gradients(&parts, config.dense_cells);
    for (place, gradient) in found.into_iter().enumerate() {
        let of_share = (cosines[place].clone() * gradient.clone()).sum();
        let term = share(place) * Tensor::from_inner(of_share.reshape([1, 1]));
        let of_directions = direction_gradient(
            directions[place].clone().inner(),
            &graphs.learned[place],
            gradient * share(place).inner(),
            config.dense_cells,
        );
        // Terms with the known gradients; their values mean nothing.
        let carrier = (directions[place].clone() * Tensor::from_inner(of_directions)).sum();
        loss = loss + term.reshape([1]) + carrier;
    }
    let mut gradients = GradientsParams::from_grads(loss.backward(), lattice);
    let ids = lattice.graph_parameters();
    move_gradients(lattice, &ids, &mut gradients, parameters);
}

/// The weights of the given graph in the order of its neighbours, `[items, neighbours]`.
fn given_weights<B: Backend>(
    neighbours: &Neighbours,
    edges: &Edges,
    like: &Tensor<B, 2>,
) -> Tensor<B, 2> {
    let mut weights = Vec::with_capacity(neighbours.items().len());
    for item in 0..neighbours.num_items() {
        let row: Vec<(u32, f32)> = edges.row(item).collect();
        for (other, _) in neighbours.of(item) {
            // Rows of edges are sorted by column and hold every neighbour.
            let place = row.binary_search_by_key(&other, |&(column, _)| column);
            weights.push(place.map_or(0.0, |place| row[place].1));
        }
    }
    let data = TensorData::new(weights, [neighbours.num_items(), neighbours.per_item()]);
    Tensor::from_data(data, &like.device())
}
