//! BLIP-2 (Li et al., 2023) with an OPT decoder: a vision tower, a Q-Former that asks the image a fixed number of learned
//! queries, and a language model that reads the answers as if they were words. Module paths are the checkpoint's names
//! (transformers' `Blip2ForConditionalGeneration`). Flan-T5 decoders are not here.

mod attention;
mod beam;
mod cache;
pub mod config;
pub mod generate;
pub mod model;
pub mod opt;
pub mod qformer;
pub mod vision;

pub use config::{
    Blip2Config, Blip2ConfigError, Blip2QFormerConfig, Blip2VisionConfig, OptConfig, TokenIds,
};
pub use generate::{CaptionOptions, EarlyStopping};
pub use model::{Blip2Error, Blip2ForConditionalGeneration, ImageFeatures, TokenBatch};
