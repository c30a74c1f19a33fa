//! MICRO, the multimodal ranking model.

pub mod config;
pub mod graph;
pub mod light_gcn;
pub mod micro;
pub mod rank;
