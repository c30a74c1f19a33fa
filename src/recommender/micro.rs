//! MICRO: the network, its graphs, and the forward pass.

use burn::module::{Initializer, Module, Param};
use burn::nn::{Embedding, Linear, Tanh};
use burn::tensor::activation::softmax;
use burn::tensor::{Device, Tensor, TensorData, backend::Backend};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::config::{MicroConfig, RecommenderError};
use super::features::{FeatureTable, ItemFeatures};
use super::graph::{Edges, Graph};
use super::interactions::Interactions;
use super::light_gcn::{LightGcn, Nodes};
use super::neighbours::{Neighbours, unit_rows};

/// The two kinds of item features.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Modality {
    /// Visual features.
    Image,
    /// Textual features.
    Text,
}

impl Modality {
    /// Both, in the order in which they are fused.
    pub const ALL: [Self; 2] = [Self::Image, Self::Text];
}

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
        let mut random = ChaCha8Rng::seed_from_u64(config.seed);
        let width = config.embedding_width;
        let num_items = features.num_items();
        let mut table = |rows: usize| {
            let bound = (6.0 / (rows + width) as f64).sqrt() as f32;
            embedding(uniform(&mut random, [rows, width], bound, device))
        };
        let user_embedding = table(num_users);
        let item_id_embedding = table(num_items);
        let mut dense = |inputs: usize, outputs: usize, bias: bool| {
            let bound = 1.0 / (inputs as f32).sqrt();
            Linear {
                weight: Param::from_tensor(uniform(&mut random, [inputs, outputs], bound, device)),
                bias: bias.then(|| {
                    let row = uniform(&mut random, [1, outputs], bound, device);
                    Param::from_tensor(row.reshape([outputs]))
                }),
            }
        };
        Self {
            user_embedding,
            item_id_embedding,
            image_embedding: embedding(features.image.tensor(device)),
            text_embedding: embedding(features.text.tensor(device)),
            image_trs: dense(features.image.width(), width, true),
            text_trs: dense(features.text.width(), width, true),
            query: (
                dense(width, width, true),
                Tanh::new(),
                dense(width, 1, false),
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

    /// Checks that these parameters belong to the given catalogue and configuration.
    ///
    /// # Errors
    /// [`RecommenderError::Shape`] naming the first parameter that does not fit.
    pub fn check_shapes(
        &self,
        config: &MicroConfig,
        num_users: usize,
        features: &ItemFeatures,
    ) -> Result<(), RecommenderError> {
        let width = config.embedding_width;
        let num_items = features.num_items();
        for (name, tensor, expected) in [
            (
                "user_embedding",
                self.user_embedding.weight.val(),
                [num_users, width],
            ),
            (
                "item_id_embedding",
                self.item_id_embedding.weight.val(),
                [num_items, width],
            ),
            (
                "image_embedding",
                self.image_embedding.weight.val(),
                [num_items, features.image.width()],
            ),
            (
                "text_embedding",
                self.text_embedding.weight.val(),
                [num_items, features.text.width()],
            ),
        ] {
            let found = tensor.dims();
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

    /// The forward pass over fixed graphs. For training, see [`super::step`].
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

fn embedding<B: Backend>(table: Tensor<B, 2>) -> Embedding<B> {
    Embedding {
        weight: Param::from_tensor(table),
    }
}

fn uniform<B: Backend>(
    random: &mut ChaCha8Rng,
    shape: [usize; 2],
    bound: f32,
    device: &Device<B>,
) -> Tensor<B, 2> {
    let values: Vec<f32> = (0..shape[0] * shape[1])
        .map(|_| random.random_range(-bound..bound))
        .collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}
