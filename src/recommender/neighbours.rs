//! The cosine nearest-neighbour graph of a feature table.
//!
//! Directed, the item itself included, not symmetrised; degrees are row sums and scale both sides.
//! Similarities are computed on the device in blocks of rows; the choice of neighbours is made on the
//! host, so that ties fall the same way (lower item first) on every backend.

use burn::tensor::{Tensor, backend::Backend};
use rayon::prelude::*;

use super::config::rows_per_block;
use super::graph::{Edges, degree_scale};
use crate::nn::product::product;

/// The `k` nearest items of every item, the most similar first.
#[derive(Debug, Clone, PartialEq)]
pub struct Neighbours {
    per_item: usize,
    items: Vec<u32>,
    similarities: Vec<f32>,
}

impl Neighbours {
    /// The nearest neighbours of each row of `features` `[items, width]`; no more than there are items.
    ///
    /// An all-zero row has no direction: it is similar to itself alone.
    pub fn nearest<B: Backend>(features: Tensor<B, 2>, per_item: usize, block_rows: usize) -> Self {
        let [num_items, _] = features.dims();
        let per_item = per_item.min(num_items);
        let directions = unit_rows(features);
        let block_rows = rows_per_block(block_rows, num_items);
        let mut items = Vec::with_capacity(num_items * per_item);
        let mut similarities = Vec::with_capacity(num_items * per_item);
        for start in (0..num_items).step_by(block_rows) {
            let end = (start + block_rows).min(num_items);
            let rows = directions.clone().slice([start..end]);
            let block = host(product(rows, directions.clone().transpose()));
            let rows: Vec<Vec<(u32, f32)>> = block
                .par_chunks(num_items)
                .enumerate()
                .map(|(row, values)| {
                    let own = start + row;
                    if values[own] == 0.0 {
                        let mut values = values.to_vec();
                        values[own] = 1.0;
                        return largest(&values, per_item);
                    }
                    largest(values, per_item)
                })
                .collect();
            for (item, similarity) in rows.into_iter().flatten() {
                items.push(item);
                similarities.push(similarity);
            }
        }
        Self {
            per_item,
            items,
            similarities,
        }
    }

    /// Number of items.
    pub fn num_items(&self) -> usize {
        self.items.len() / self.per_item.max(1)
    }

    /// Neighbours per item.
    pub fn per_item(&self) -> usize {
        self.per_item
    }

    /// All neighbours, item after item.
    pub fn items(&self) -> &[u32] {
        &self.items
    }

    /// The neighbours of one item with their similarities, the nearest first.
    pub fn of(&self, item: usize) -> impl DoubleEndedIterator<Item = (u32, f32)> + '_ {
        let range = item * self.per_item..(item + 1) * self.per_item;
        self.items[range.clone()]
            .iter()
            .copied()
            .zip(self.similarities[range].iter().copied())
    }

    /// The sum of each row's similarities.
    pub fn degrees(&self) -> Vec<f32> {
        self.similarities
            .chunks(self.per_item.max(1))
            .map(|row| row.iter().sum())
            .collect()
    }

    /// The similarities as a graph, not scaled.
    pub fn edges(&self) -> Edges {
        let rows = (0..self.num_items()).map(|item| self.of(item).collect());
        Edges::from_rows(self.num_items(), rows)
    }

    /// The same edges with other weights: `weights` in the order of [`Self::items`].
    ///
    /// # Panics
    /// When there is not a weight per neighbour.
    pub fn weighted(&self, weights: &[f32]) -> Edges {
        assert_eq!(weights.len(), self.items.len(), "a weight per neighbour");
        let rows = (0..self.num_items()).map(|item| {
            let range = item * self.per_item..(item + 1) * self.per_item;
            let columns = self.items[range.clone()].iter().copied();
            columns.zip(weights[range].iter().copied()).collect()
        });
        Edges::from_rows(self.num_items(), rows)
    }

    /// The graph with both sides scaled by `degree^-1/2`.
    pub fn normalised(&self) -> Edges {
        let scales: Vec<f32> = self.degrees().into_iter().map(degree_scale).collect();
        let rows = (0..self.num_items()).map(|item| {
            self.of(item)
                .map(|(other, similarity)| {
                    (other, similarity * scales[item] * scales[other as usize])
                })
                .collect()
        });
        Edges::from_rows(self.num_items(), rows)
    }
}

/// Rows divided by their length; an all-zero row stays zero.
pub fn unit_rows<B: Backend>(rows: Tensor<B, 2>) -> Tensor<B, 2> {
    // Clamped below the root: the root of zero has no gradient.
    let length = (rows.clone() * rows.clone())
        .sum_dim(1)
        .clamp_min(1e-24)
        .sqrt();
    rows / length
}

/// The places and values of the `count` largest values, the largest first, the lower place first in a tie.
///
/// One pass: most values are below the smallest of those kept, and one comparison says so. A value that is
/// not a number counts as larger than any, as in [`f32::total_cmp`].
pub fn largest(values: &[f32], count: usize) -> Vec<(u32, f32)> {
    let count = count.min(values.len());
    if count == 0 {
        return Vec::new();
    }
    let mut kept: Vec<(u32, f32)> = (0u32..).zip(values[..count].iter().copied()).collect();
    kept.sort_by(|a, b| b.1.total_cmp(&a.1));
    let mut least = ordinal(kept[count - 1].1);
    for (place, &value) in values.iter().enumerate().skip(count) {
        // Places ascend, so an equal value comes after those kept.
        if ordinal(value) > least {
            let at = kept.partition_point(|&(_, other)| ordinal(other) >= ordinal(value));
            kept.pop();
            kept.insert(at, (place as u32, value));
            least = ordinal(kept[count - 1].1);
        }
    }
    kept
}

/// Integers in the order of [`f32::total_cmp`].
fn ordinal(value: f32) -> i32 {
    let bits = value.to_bits() as i32;
    bits ^ (((bits >> 31) as u32) >> 1) as i32
}

/// A tensor's values on the host, row after row.
pub fn host<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Vec<f32> {
    let data = tensor.into_data().convert::<f32>();
    data.into_vec()
        .expect("values that were converted are of this type")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_are_those_of_a_sort() {
        let values: Vec<f32> = (0..500u32)
            .map(|place| ((place * 7919) % 101) as f32 - 50.0)
            .chain([f32::NAN, -0.0, 0.0, f32::INFINITY, f32::NEG_INFINITY])
            .collect();
        let mut sorted: Vec<(u32, f32)> = (0u32..).zip(values.iter().copied()).collect();
        sorted.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        for count in [0, 1, 3, 20, 505, 900] {
            let found: Vec<u32> = largest(&values, count).iter().map(|&(p, _)| p).collect();
            let expected: Vec<u32> = sorted.iter().map(|&(p, _)| p).take(count).collect();
            assert_eq!(found, expected, "{count}");
        }
    }
}
