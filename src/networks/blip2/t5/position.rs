//! Relative positions as T5 sees them: a bias per head and bucket of distances (Raffel et al., 2020, sec. 2.1).

use burn::module::Module;
use burn::nn::Embedding;
use burn::tensor::{Int, Tensor, TensorData, backend::Backend};

/// How distances fall into buckets.
#[derive(Module, Clone, Debug)]
pub struct Buckets {
    pub(super) num_buckets: usize,
    pub(super) max_distance: usize,
    /// Both directions (encoder) or the past only (decoder).
    pub(super) both_ways: bool,
}

impl Buckets {
    /// The bucket of a key `key - query` places away from its query.
    ///
    /// Half of the buckets hold one distance each, the others grow by a constant factor up to `max_distance`; what is
    /// farther falls into the last. Computed in f32, as the reference does: that decides at the borders.
    pub(super) fn of(&self, query: usize, key: usize) -> usize {
        let (num_buckets, first) = match self.both_ways {
            true if key > query => (self.num_buckets / 2, self.num_buckets / 2),
            true => (self.num_buckets / 2, 0),
            false => (self.num_buckets, 0),
        };
        let distance = match self.both_ways {
            true => query.abs_diff(key),
            false => query.saturating_sub(key),
        };
        let exact = num_buckets / 2;
        if distance < exact {
            return first + distance;
        }
        let spread = (self.max_distance as f64 / exact as f64).ln() as f32;
        let share = (distance as f32 / exact as f32).ln() / spread;
        let grown = exact + (share * (num_buckets - exact) as f32) as usize;
        first + grown.min(num_buckets - 1)
    }

    /// What is added to the scores, `[1, heads, new tokens, all tokens]`, for the last `num_new` of `total` tokens.
    pub(super) fn bias<B: Backend>(
        &self,
        table: &Embedding<B>,
        num_new: usize,
        total: usize,
    ) -> Tensor<B, 4> {
        let buckets: Vec<i64> = (total - num_new..total)
            .flat_map(|query| (0..total).map(move |key| (query, key)))
            .map(|(query, key)| self.of(query, key) as i64)
            .collect();
        let data = TensorData::new(buckets, [num_new, total]);
        let buckets = Tensor::<B, 2, Int>::from_data(data, &table.weight.device());
        table
            .forward(buckets)
            .permute([2, 0, 1])
            .unsqueeze_dim::<4>(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Distances at which the bucket changes, from transformers' `_relative_position_bucket` (torch 2.9).
    #[test]
    fn buckets_change_where_the_reference_changes_them() {
        for (num_buckets, max_distance, both_ways, expected) in CHANGES {
            let buckets = Buckets {
                num_buckets,
                max_distance,
                both_ways,
            };
            let of = |distance: usize| buckets.of(distance, 0);
            let changes: Vec<usize> = (1..300).filter(|d| of(*d) != of(d - 1)).collect();
            assert_eq!(changes, expected, "{num_buckets} up to {max_distance}");
            let ahead = buckets.of(0, 5);
            let behind = buckets.of(5, 0);
            assert_eq!(
                ahead,
                if both_ways {
                    behind + num_buckets / 2
                } else {
                    0
                }
            );
        }
    }

    const CHANGES: [(usize, usize, bool, &[usize]); 4] = [
        (
            32,
            128,
            true,
            &[1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 23, 32, 46, 64, 91],
        ),
        (
            32,
            128,
            false,
            &[
                1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 19, 21, 24, 27, 31, 35, 40,
                46, 52, 59, 67, 77, 87, 99, 113,
            ],
        ),
        (8, 20, true, &[1, 2, 7]),
        (12, 40, false, &[1, 2, 3, 4, 5, 6, 9, 12, 16, 22, 30]),
    ];
}
