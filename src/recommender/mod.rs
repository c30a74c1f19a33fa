//! Ranking models over interactions and item features. It knows vectors and interactions, neither pictures
//! nor files.
//!
//! The paper's is MICRO (Zhang et al., TKDE 2023): LightGCN over interactions plus item graphs mined from
//! images and texts. Beside it stand its forerunner LATTICE, what is left without features (LightGCN) and
//! without graphs (matrix factorisation), and the floor: all behind [`Recommender`].

pub mod collaborative;
pub mod config;
pub mod contrastive;
pub mod features;
pub mod graph;
mod initial;
pub mod interactions;
pub mod lattice;
pub mod light_gcn;
pub mod micro;
pub mod model;
pub mod neighbours;
pub mod popularity;
pub mod rank;
pub mod rows;

pub mod contract;
pub mod selection;
pub mod step;

pub use collaborative::{LightGcnRecommender, MatrixFactorisation};
pub use config::{MicroConfig, RecommenderError, RecommenderKind};
pub use contract::{Embeddings, FrozenGraphs, Recommender, TrainableRecommender};
pub use features::{FeatureTable, ItemFeatures, Modality};
pub use interactions::{InteractionSplit, Interactions};
pub use lattice::{Lattice, LatticeGraphs};
pub use micro::{Micro, MicroEmbeddings, MicroGraphs};
pub use model::RankingModel;
pub use popularity::Popularity;
pub use selection::ItemSelection;
