//! MICRO's graphs: interactions, and one graph between items per modality.

use burn::tensor::{Device, Tensor, backend::Backend};

use super::Micro;
use crate::recommender::config::MicroConfig;
use crate::recommender::features::{FeatureTable, ItemFeatures, Modality};
use crate::recommender::graph::{Edges, Graph};
use crate::recommender::interactions::Interactions;
use crate::recommender::light_gcn::LightGcn;
use crate::recommender::neighbours::Neighbours;

/// The graph of one modality: a fixed part from the given features and a learned one, blended.
#[derive(Debug, Clone)]
pub struct ItemGraph<B: Backend> {
    /// Neighbours by the given features.
    pub original: Neighbours,
    /// Neighbours by the projected, trained features.
    pub learned: Neighbours,
    /// The blended, normalised graph on the host.
    pub edges: Edges,
    /// The same on the device.
    pub graph: Graph<B>,
    original_edges: Edges,
}

/// Everything that is propagated over.
#[derive(Debug, Clone)]
pub struct MicroGraphs<B: Backend> {
    /// Users and items.
    pub interactions: LightGcn<B>,
    /// Items by image.
    pub image: ItemGraph<B>,
    /// Items by text.
    pub text: ItemGraph<B>,
    /// Propagations over each item graph.
    pub num_item_layers: usize,
}

impl<B: Backend> ItemGraph<B> {
    fn new(
        config: &MicroConfig,
        given: &FeatureTable,
        projected: Tensor<B, 2>,
        device: &Device<B>,
    ) -> Self {
        let original = Neighbours::nearest(
            given.tensor::<B>(device),
            config.num_neighbours,
            config.block_rows,
        );
        let original_edges = original.normalised();
        Self::blended(config, original, original_edges, projected, device)
    }

    fn blended(
        config: &MicroConfig,
        original: Neighbours,
        original_edges: Edges,
        projected: Tensor<B, 2>,
        device: &Device<B>,
    ) -> Self {
        let learned = Neighbours::nearest(projected, config.num_neighbours, config.block_rows);
        let share = config.original_weight;
        let edges = original_edges.blend(share, &learned.normalised(), 1.0 - share);
        let graph = Graph::new(&edges, config.dense_cells, device);
        Self {
            original,
            learned,
            edges,
            graph,
            original_edges,
        }
    }
}

impl<B: Backend> MicroGraphs<B> {
    /// All graphs of a catalogue: interactions, given features, and `micro`'s present learned features.
    pub fn new(
        config: &MicroConfig,
        interactions: &Interactions,
        features: &ItemFeatures,
        micro: &Micro<B>,
        device: &Device<B>,
    ) -> Self {
        Self {
            interactions: LightGcn::new(
                interactions,
                config.num_layers,
                config.dense_cells,
                device,
            ),
            image: ItemGraph::new(
                config,
                &features.image,
                micro.projected(Modality::Image),
                device,
            ),
            text: ItemGraph::new(
                config,
                &features.text,
                micro.projected(Modality::Text),
                device,
            ),
            num_item_layers: config.num_item_layers,
        }
    }

    /// Builds the learned graphs again from `micro`'s present features.
    pub fn rebuild(&mut self, config: &MicroConfig, micro: &Micro<B>) {
        for modality in Modality::ALL {
            let projected = micro.projected(modality);
            let device = projected.device();
            let current = match modality {
                Modality::Image => &mut self.image,
                Modality::Text => &mut self.text,
            };
            *current = ItemGraph::blended(
                config,
                current.original.clone(),
                current.original_edges.clone(),
                projected,
                &device,
            );
        }
    }

    /// The item graph of a modality.
    pub fn item_graph(&self, modality: Modality) -> &ItemGraph<B> {
        match modality {
            Modality::Image => &self.image,
            Modality::Text => &self.text,
        }
    }
}
