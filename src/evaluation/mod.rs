//! Metrics, truth scores, intervals and tests. Knows pictures, features and ranks, and no method.

pub mod distance;
pub mod frechet;
pub mod interval;
pub mod metric;
pub mod paired;
pub mod perceptual;
pub mod ranking;
pub mod similarity;
pub mod symmetric;
pub mod truth;
