//! Where a step's time goes.

use std::time::Instant;

use burn::tensor::Device;
use burn::tensor::backend::Backend;
use serde::Serialize;

/// Seconds of each part of a step. The device is waited for at the end of each, else a part would be charged with
/// what an earlier one left to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Seconds {
    /// Prompts and language model, without a graph.
    #[serde(rename = "seconds_language")]
    pub language: f64,
    /// Denoising and decoding.
    #[serde(rename = "seconds_drawing")]
    pub drawing: f64,
    /// The visual encoder on what was drawn.
    #[serde(rename = "seconds_encoding")]
    pub encoding: f64,
    /// The ranking model.
    #[serde(rename = "seconds_judging")]
    pub judging: f64,
    /// Forward with a graph, losses, backward.
    #[serde(rename = "seconds_learning")]
    pub learning: f64,
    /// The optimiser.
    #[serde(rename = "seconds_update")]
    pub update: f64,
}

impl Seconds {
    /// All parts together.
    pub fn total(&self) -> f64 {
        self.parts().iter().map(|(_, seconds)| seconds).sum()
    }

    /// The parts by name, in the order in which they happen.
    pub fn parts(&self) -> [(&'static str, f64); 6] {
        [
            ("language", self.language),
            ("drawing", self.drawing),
            ("encoding", self.encoding),
            ("judging", self.judging),
            ("learning", self.learning),
            ("update", self.update),
        ]
    }
}

/// Measures one part after the other.
#[derive(Debug)]
pub struct Clock<'a, B: Backend> {
    device: &'a Device<B>,
    since: Instant,
}

impl<'a, B: Backend> Clock<'a, B> {
    /// Starts now.
    pub fn start(device: &'a Device<B>) -> Self {
        Self {
            device,
            since: Instant::now(),
        }
    }

    /// Waits for the device; the seconds since the last lap.
    pub fn lap(&mut self) -> f64 {
        if let Err(error) = B::sync(self.device) {
            tracing::warn!("the device cannot be waited for: {error:?}");
        }
        let seconds = self.since.elapsed().as_secs_f64();
        self.since = Instant::now();
        seconds
    }
}
