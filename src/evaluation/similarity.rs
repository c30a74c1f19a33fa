//! Cosine scores of the paper's Table 2, from embeddings of one joint encoder, times 100.

use serde::{Deserialize, Serialize};

/// The cosine of two vectors; 0 when one of them has no direction.
///
/// # Panics
/// When their widths differ.
pub fn cosine(first: &[f32], second: &[f32]) -> f64 {
    assert_eq!(first.len(), second.len(), "widths of compared embeddings");
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter()
            .zip(b)
            .map(|(a, b)| f64::from(*a) * f64::from(*b))
            .sum()
    };
    let lengths = (dot(first, first) * dot(second, second)).sqrt();
    if lengths > 0.0 {
        dot(first, second) / lengths
    } else {
        0.0
    }
}

/// One image's similarity to the user and to the reference.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Similarities {
    /// CPS: to the text of the user's preference.
    pub preference_text: f64,
    /// CPIS: to the history's images, on average.
    pub history_images: f64,
    /// CS: to the reference's text.
    pub reference_text: f64,
    /// CIS: to the reference's image.
    pub reference_image: f64,
}

/// What an image is compared with; all embeddings come from one joint encoder.
#[derive(Debug, Clone, Copy)]
pub struct Comparison<'a> {
    /// Text embedding of the user's preference.
    pub preference_text: &'a [f32],
    /// Image embeddings of the history.
    pub history_images: &'a [Vec<f32>],
    /// Text embedding of the reference.
    pub reference_text: &'a [f32],
    /// Image embedding of the reference.
    pub reference_image: &'a [f32],
}

/// Compares one image embedding with its user and its reference.
pub fn similarities(image: &[f32], with: &Comparison<'_>) -> Similarities {
    Similarities {
        preference_text: 100.0 * cosine(image, with.preference_text),
        history_images: mean_cosine(image, with.history_images),
        reference_text: 100.0 * cosine(image, with.reference_text),
        reference_image: 100.0 * cosine(image, with.reference_image),
    }
}

/// The mean cosine of `image` and each of `others`, times 100; 0 without others.
pub fn mean_cosine(image: &[f32], others: &[Vec<f32>]) -> f64 {
    if others.is_empty() {
        return 0.0;
    }
    let sum: f64 = others.iter().map(|other| cosine(image, other)).sum();
    100.0 * sum / others.len() as f64
}
