//! LATTICE's graphs: interactions, and one graph between items.

use burn::tensor::{Device, backend::Backend};

use super::Lattice;
use crate::recommender::config::MicroConfig;
use crate::recommender::features::{ItemFeatures, Modality};
use crate::recommender::graph::{Edges, Graph};
use crate::recommender::interactions::Interactions;
use crate::recommender::light_gcn::LightGcn;
use crate::recommender::neighbours::Neighbours;

/// Everything that is propagated over.
#[derive(Debug, Clone)]
pub struct LatticeGraphs<B: Backend> {
    /// Users and items.
    pub interactions: LightGcn<B>,
    /// Neighbours by the given features, per modality.
    pub original: [Neighbours; 2],
    /// Neighbours by the projected, trained features, per modality.
    pub learned: [Neighbours; 2],
    /// The one graph between items, on the host.
    pub edges: Edges,
    /// The same on the device.
    pub graph: Graph<B>,
    /// Propagations over it.
    pub num_item_layers: usize,
    /// The given graphs, normalised.
    pub(super) original_edges: [Edges; 2],
}

impl<B: Backend> LatticeGraphs<B> {
    /// All graphs of a catalogue: interactions, given features, and `lattice`'s present learned features.
    pub fn new(
        config: &MicroConfig,
        interactions: &Interactions,
        features: &ItemFeatures,
        lattice: &Lattice<B>,
        device: &Device<B>,
    ) -> Self {
        let original = Modality::ALL.map(|modality| {
            let given = features.of(modality).tensor::<B>(device);
            Neighbours::nearest(given, config.num_neighbours, config.block_rows)
        });
        let original_edges = original.each_ref().map(Neighbours::normalised);
        let learned = learned(config, lattice);
        let edges = summed(config, lattice, &original_edges, &learned);
        Self {
            interactions: LightGcn::new(
                interactions,
                config.num_layers,
                config.dense_cells,
                device,
            ),
            graph: Graph::new(&edges, config.dense_cells, device),
            edges,
            original,
            learned,
            original_edges,
            num_item_layers: config.num_item_layers,
        }
    }

    /// Builds the learned part again from `lattice`'s present features and shares.
    pub fn rebuild(&mut self, config: &MicroConfig, lattice: &Lattice<B>) {
        self.learned = learned(config, lattice);
        self.edges = summed(config, lattice, &self.original_edges, &self.learned);
        let device = lattice.modal_weight.device();
        self.graph = Graph::new(&self.edges, config.dense_cells, &device);
    }
}

fn learned<B: Backend>(config: &MicroConfig, lattice: &Lattice<B>) -> [Neighbours; 2] {
    Modality::ALL.map(|modality| {
        let projected = lattice.projected(modality);
        Neighbours::nearest(projected, config.num_neighbours, config.block_rows)
    })
}

/// `λ · Σ share · original + (1 − λ) · normalised(Σ share · learned)`.
fn summed<B: Backend>(
    config: &MicroConfig,
    lattice: &Lattice<B>,
    original: &[Edges; 2],
    learned: &[Neighbours; 2],
) -> Edges {
    let shares: Vec<f32> = lattice.shares().into_data().iter::<f32>().collect();
    let [image, text] = learned.each_ref().map(Neighbours::edges);
    let learned = image.blend(shares[0], &text, shares[1]).normalised();
    let original = original[0].blend(shares[0], &original[1], shares[1]);
    original.blend(
        config.original_weight,
        &learned,
        1.0 - config.original_weight,
    )
}
