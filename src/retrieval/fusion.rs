//! Fusion Unit: the retrieved images as one preference vector.

use serde::{Deserialize, Serialize};

use super::correlation::Retrieved;

/// How similarities become weights that sum to one (our reading: the paper's formula is lost).
#[derive(Debug, Clone, Copy, Serialize, Deserialize, PartialEq, Eq, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Normaliser {
    /// Clamped at zero, divided by their sum.
    #[default]
    Sum,
    /// Softmax over similarity / temperature.
    Softmax,
}

/// Settings of the retrieval module.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct RetrievalConfig {
    /// Items kept (paper: 5). 0 switches retrieval off: the whole history counts, equally.
    pub k: usize,
    /// From similarities to weights.
    pub normaliser: Normaliser,
    /// Of the softmax (not in the paper).
    pub temperature: f32,
}

impl Default for RetrievalConfig {
    fn default() -> Self {
        Self {
            k: 5,
            normaliser: Normaliser::Sum,
            temperature: 0.1,
        }
    }
}

impl RetrievalConfig {
    /// Refuses values without a meaning, with the reason.
    ///
    /// # Errors
    /// A sentence that names the key.
    pub fn validate(&self) -> Result<(), String> {
        if self.temperature <= 0.0 || !self.temperature.is_finite() {
            return Err(format!(
                "temperature = {} must be above 0",
                self.temperature
            ));
        }
        Ok(())
    }
}

/// `p_ret`: the weighted mean of the retrieved items' visual embeddings, `[d]`.
#[derive(Debug, Clone, PartialEq)]
pub struct RetrievedPreference(pub Vec<f32>);

/// Weights of the retrieved items, summing to one. Where no similarity is positive they are equal.
pub fn weights(similarities: &[f32], config: &RetrievalConfig) -> Vec<f32> {
    let raw: Vec<f32> = match config.normaliser {
        Normaliser::Sum => similarities.iter().map(|s| s.max(0.0)).collect(),
        Normaliser::Softmax => {
            let top = similarities.iter().copied().fold(f32::MIN, f32::max);
            let scaled = |s: &f32| ((s - top) / config.temperature).exp();
            similarities.iter().map(scaled).collect()
        }
    };
    let sum: f32 = raw.iter().sum();
    if sum > 0.0 {
        raw.iter().map(|w| w / sum).collect()
    } else {
        vec![1.0 / similarities.len().max(1) as f32; similarities.len()]
    }
}

/// The retrieved items' visual embeddings as one vector (paper Sec. 3.1; equation 5 of the method).
///
/// `visual` holds a normalised image embedding per history item, `[N, d]`, in the history's order.
pub fn fuse(
    retrieved: &Retrieved,
    visual: &[&[f32]],
    config: &RetrievalConfig,
) -> RetrievedPreference {
    let width = visual.first().map_or(0, |v| v.len());
    let mut preference = vec![0.0; width];
    let weights = weights(&retrieved.similarities, config);
    for (&position, weight) in retrieved.positions.iter().zip(weights) {
        for (sum, value) in preference.iter_mut().zip(visual[position]) {
            *sum += weight * value;
        }
    }
    RetrievedPreference(preference)
}
