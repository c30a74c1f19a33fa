//! BLIP-2 (Li et al., 2023): a vision tower, a Q-Former that asks the image a fixed number of learned queries, and a
//! language model — OPT or Flan-T5 — that reads the answers as if they were words. Module paths are the checkpoint's
//! names (transformers' `Blip2ForConditionalGeneration`).

mod attention;
mod beam;
mod cache;
pub mod config;
mod decoding;
pub mod generate;
mod language;
pub mod model;
pub mod opt;
pub mod qformer;
pub mod t5;
pub mod vision;

pub use config::{
    Blip2Config, Blip2ConfigError, Blip2QFormerConfig, Blip2VisionConfig, OptConfig, TokenIds,
};
pub use generate::{CaptionOptions, EarlyStopping};
pub use language::{LanguageModel, TextConfig};
pub use model::{Answer, Blip2Error, Blip2ForConditionalGeneration, ImageFeatures, TokenBatch};
pub use t5::T5Config;
