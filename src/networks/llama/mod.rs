//! llama.

pub mod block;
pub mod cache;
pub mod config;
pub mod model;
