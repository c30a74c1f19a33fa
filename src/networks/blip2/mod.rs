//! blip2.

pub mod config;
pub mod generate;
pub mod opt;
pub mod qformer;
pub mod vision;
