//! The Llama language model as `transformers` defines it (`LlamaForCausalLM`): RMS norms, grouped-query
//! attention with half-split rotary embeddings, gated SiLU feed-forward, low-rank adapters.
//!
//! No tokeniser and no file access here.

pub mod adapter;
pub mod block;
pub mod cache;
pub mod config;
pub mod generate;
pub mod image_tokens;
pub mod model;

pub use adapter::LlamaAdapter;
pub use cache::KeyValueCache;
pub use config::{GenerationEnds, LlamaConfig, LlamaConfigError};
pub use image_tokens::ImageTokens;
pub use model::{LlamaForCausalLm, LlamaModel};
