//! Softmax of attention scores.

use rayon::prelude::*;

use crate::norm::sum;
use crate::vector::{exp, widest};

/// Numbers worth a thread of their own.
const PER_TASK: usize = 1 << 14;
/// Maxima that run side by side.
const LANES: usize = 16;

/// What a softmax works on: `[batch, heads, queries, keys]`.
#[derive(Debug, Clone, Copy)]
pub struct SoftmaxSizes {
    /// Heads of each row of the batch.
    pub heads: usize,
    /// Queries of each head.
    pub queries: usize,
    /// Keys that a query weighs.
    pub keys: usize,
}

/// `softmax(scores · scale + bias)` over the keys, in place.
///
/// `bias` is `[queries, keys]` for the whole batch, or that once per row of it; all heads share it.
///
/// # Panics
/// When the slices do not fit the sizes.
pub fn biased_softmax(scores: &mut [f32], sizes: SoftmaxSizes, scale: f32, bias: &[f32]) {
    let SoftmaxSizes {
        heads,
        queries,
        keys,
    } = sizes;
    let table = queries * keys;
    assert_eq!(scores.len() % (heads * table), 0, "whole rows of a batch");
    assert!(
        bias.len() == table || bias.len() * heads == scores.len(),
        "a bias for all, or one per row of the batch"
    );
    let rows = PER_TASK.div_ceil(keys);
    scores
        .par_chunks_mut(rows * keys)
        .enumerate()
        .for_each(|(task, scores)| {
            for (place, scores) in scores.chunks_exact_mut(keys).enumerate() {
                let row = task * rows + place;
                let (batch, query) = (row / (heads * queries), row % queries);
                let start = (batch * queries + query) * keys % bias.len();
                one_row(scores, scale, &bias[start..start + keys]);
            }
        });
}

widest! {
    fn one_row(scores: &mut [f32], scale: f32, bias: &[f32]) {
        for (score, bias) in scores.iter_mut().zip(bias) {
            *score = *score * scale + bias;
        }
        let largest = largest(scores);
        for score in scores.iter_mut() {
            *score = exp(*score - largest);
        }
        let share = (1.0 / sum(scores, |score| score)) as f32;
        for score in scores {
            *score *= share;
        }
    }
}

#[inline(always)]
pub(crate) fn largest(values: &[f32]) -> f32 {
    let mut found = [f32::NEG_INFINITY; LANES];
    let chunks = values.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (found, value) in found.iter_mut().zip(chunk) {
            *found = found.max(*value);
        }
    }
    found
        .iter()
        .chain(rest)
        .copied()
        .fold(f32::NEG_INFINITY, f32::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_query_takes_its_own_bias() {
        let (batch, heads, queries, keys) = (2, 3, 2, 37);
        let sizes = SoftmaxSizes {
            heads,
            queries,
            keys,
        };
        let numbers = |count: usize, step: usize| -> Vec<f32> {
            (0..count)
                .map(|i| ((i * step + 11) % 101) as f32 / 25.0)
                .collect()
        };
        let scores = numbers(batch * heads * queries * keys, 37);
        for batches in [1, batch] {
            let mut bias = numbers(batches * queries * keys, 29);
            bias[3] = -1e9;
            let mut got = scores.clone();
            biased_softmax(&mut got, sizes, 0.5, &bias);
            assert_eq!(got[3], 0.0, "a masked key weighs nothing");
            for (row, (got, scores)) in got.chunks(keys).zip(scores.chunks(keys)).enumerate() {
                let table = if batches == 1 {
                    0
                } else {
                    row / (heads * queries)
                };
                let bias = &bias[(table * queries + row % queries) * keys..];
                let powers: Vec<f64> = scores
                    .iter()
                    .zip(bias)
                    .map(|(score, bias)| (f64::from(*score) * 0.5 + f64::from(*bias)).exp())
                    .collect();
                let sum: f64 = powers.iter().sum();
                for (got, power) in got.iter().zip(powers) {
                    let want = power / sum;
                    assert!((f64::from(*got) - want).abs() < 1e-6, "{got} for {want}");
                }
            }
        }
    }
}
