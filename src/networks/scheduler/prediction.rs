//! What the denoising network predicts, and what follows from it about sample and noise.

use burn::tensor::{Tensor, backend::Backend};
use serde::{Deserialize, Serialize};

/// What the denoising network predicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PredictionType {
    /// The noise.
    Epsilon,
    /// `√ᾱ · noise − √(1 − ᾱ) · sample` (Salimans and Ho).
    VPrediction,
    /// The clean sample.
    #[serde(alias = "original_sample")]
    Sample,
}

impl PredictionType {
    /// The clean sample as a combination of the sample and the network's output. `signal` is √ᾱ, `spread` √(1 − ᾱ).
    pub(super) fn clean(self, signal: f64, spread: f64) -> [f64; 2] {
        match self {
            Self::Epsilon => [1.0 / signal, -spread / signal],
            Self::VPrediction => [signal, -spread],
            Self::Sample => [0.0, 1.0],
        }
    }

    /// The noise as such a combination.
    pub(super) fn noise(self, signal: f64, spread: f64) -> [f64; 2] {
        match self {
            Self::Epsilon => [0.0, 1.0],
            Self::VPrediction => [spread, signal],
            Self::Sample => [1.0 / spread, -signal / spread],
        }
    }
}

/// `weights[0] · sample + weights[1] · output`.
pub(super) fn combine<B: Backend>(
    weights: [f64; 2],
    sample: &Tensor<B, 4>,
    output: &Tensor<B, 4>,
) -> Tensor<B, 4> {
    sample.clone().mul_scalar(weights[0]) + output.clone().mul_scalar(weights[1])
}
