//! MICRO, the multimodal ranking model (Zhang et al., TKDE 2023): LightGCN over interactions plus item
//! graphs mined from images and texts. It knows vectors and interactions, neither pictures nor files.

pub mod config;
pub mod contrastive;
pub mod features;
pub mod graph;
pub mod interactions;
pub mod light_gcn;
pub mod micro;
pub mod model;
pub mod neighbours;
pub mod rank;
pub mod selection;
pub mod step;

pub use config::{MicroConfig, RecommenderError};
pub use features::{FeatureTable, ItemFeatures};
pub use interactions::{InteractionSplit, Interactions};
pub use micro::{Micro, MicroEmbeddings, MicroGraphs};
pub use model::RankingModel;
pub use selection::ItemSelection;
