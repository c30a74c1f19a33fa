//! Metrics, truth scores and intervals.

pub mod distance;
pub mod interval;
pub mod ranking;
pub mod similarity;
pub mod truth;
