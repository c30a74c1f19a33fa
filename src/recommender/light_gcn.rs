//! LightGCN over the user–item graph: `D⁻¹(A + I)`, the mean of layers 0 to L.

use burn::tensor::{Device, Tensor, TensorData, backend::Backend};

use super::graph::{Edges, Graph};
use super::interactions::Interactions;

/// The row-normalised interaction graph with self loops, as one block per direction.
#[derive(Debug, Clone)]
pub struct LightGcn<B: Backend> {
    num_layers: usize,
    users_from_items: Graph<B>,
    items_from_users: Graph<B>,
    /// Weight of a node's own vector, `[users, 1]` and `[items, 1]`.
    user_loops: Tensor<B, 2>,
    item_loops: Tensor<B, 2>,
}

/// Vectors of users `[users, width]` and of items `[items, width]`.
#[derive(Debug, Clone)]
pub struct Nodes<B: Backend> {
    /// One row per user.
    pub users: Tensor<B, 2>,
    /// One row per item.
    pub items: Tensor<B, 2>,
}

impl<B: Backend> LightGcn<B> {
    /// The graph of the given interactions.
    pub fn new(
        interactions: &Interactions,
        num_layers: usize,
        dense_cells: usize,
        device: &Device<B>,
    ) -> Self {
        let num_users = interactions.num_users();
        let num_items = interactions.num_items();
        let user_loops: Vec<f32> = interactions
            .by_user()
            .iter()
            .map(|items| 1.0 / (items.len() + 1) as f32)
            .collect();
        let item_loops: Vec<f32> = interactions
            .popularity()
            .into_iter()
            .map(|users| 1.0 / (users + 1) as f32)
            .collect();
        let weighted = |weight: f32, others: &[u32]| -> Vec<(u32, f32)> {
            others.iter().map(|&other| (other, weight)).collect()
        };
        let by_user = interactions.by_user();
        let user_rows = Edges::from_rows(
            num_items,
            by_user
                .iter()
                .zip(&user_loops)
                .map(|(items, &weight)| weighted(weight, items)),
        );
        let mut by_item = vec![Vec::new(); num_items];
        for (user, items) in by_user.iter().enumerate() {
            for &item in items {
                by_item[item as usize].push(user as u32);
            }
        }
        let item_rows = Edges::from_rows(
            num_users,
            by_item
                .iter()
                .zip(&item_loops)
                .map(|(users, &weight)| weighted(weight, users)),
        );
        Self {
            num_layers,
            users_from_items: Graph::new(&user_rows, dense_cells, device),
            items_from_users: Graph::new(&item_rows, dense_cells, device),
            user_loops: Tensor::from_data(TensorData::new(user_loops, [num_users, 1]), device),
            item_loops: Tensor::from_data(TensorData::new(item_loops, [num_items, 1]), device),
        }
    }

    /// The final vectors of the given initial ones.
    pub fn propagate(&self, nodes: Nodes<B>) -> Nodes<B> {
        self.mean_of_layers(nodes, |nodes| Nodes {
            users: nodes.users.clone() * self.user_loops.clone()
                + self.users_from_items.propagate(nodes.items.clone()),
            items: nodes.items * self.item_loops.clone()
                + self.items_from_users.propagate(nodes.users),
        })
    }

    /// Carries the gradients of the final vectors back to the initial ones: the same sum with the
    /// transposed graph.
    pub fn propagate_back(&self, gradients: Nodes<B>) -> Nodes<B> {
        self.mean_of_layers(gradients, |nodes| Nodes {
            users: nodes.users.clone() * self.user_loops.clone()
                + self.items_from_users.propagate_back(nodes.items.clone()),
            items: nodes.items * self.item_loops.clone()
                + self.users_from_items.propagate_back(nodes.users),
        })
    }

    fn mean_of_layers(&self, nodes: Nodes<B>, layer: impl Fn(Nodes<B>) -> Nodes<B>) -> Nodes<B> {
        let mut sum = nodes.clone();
        let mut current = nodes;
        for _ in 0..self.num_layers {
            current = layer(current);
            sum = Nodes {
                users: sum.users + current.users.clone(),
                items: sum.items + current.items.clone(),
            };
        }
        let scale = 1.0 / (self.num_layers + 1) as f32;
        Nodes {
            users: sum.users * scale,
            items: sum.items * scale,
        }
    }
}
