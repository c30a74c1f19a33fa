//! Correlation Unit: the history items whose captions are closest to the reference's.

/// The history items kept for one reference, the most similar first.
#[derive(Debug, Clone, PartialEq)]
pub struct Retrieved {
    /// Places in the history, which runs from the oldest item to the newest.
    pub positions: Vec<usize>,
    /// Cosine of each kept item's caption embedding with the reference's, in [−1, 1].
    pub similarities: Vec<f32>,
}

/// Cosine of two vectors of one width; 0 where either has no length.
pub fn cosine(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len(), "embeddings of different width");
    let dot: f32 = a.iter().zip(b).map(|(x, y)| x * y).sum();
    let length = |v: &[f32]| v.iter().map(|x| x * x).sum::<f32>().sqrt();
    let product = length(a) * length(b);
    if product > 0.0 { dot / product } else { 0.0 }
}

/// The `k` history items most similar to the reference (paper Sec. 3.1; equation 3 of the method).
///
/// `history` holds a caption embedding per item, oldest first; fewer than `k` items are all kept.
/// A tie goes to the more recent item (our reading: the paper does not say).
pub fn retrieve(history: &[&[f32]], reference: &[f32], k: usize) -> Retrieved {
    let mut ranked: Vec<(usize, f32)> = history
        .iter()
        .map(|embedding| cosine(embedding, reference))
        .enumerate()
        .collect();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1).then(b.0.cmp(&a.0)));
    ranked.truncate(k);
    let (positions, similarities) = ranked.into_iter().unzip();
    Retrieved {
        positions,
        similarities,
    }
}
