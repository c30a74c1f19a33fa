//! Attention over heads, without masks, from tokens as linear layers leave them.
//!
//! Heads stand side by side in a token's numbers, and stay there: nothing is laid out anew but the keys and values of the
//! head at hand. Some queries at once meet all keys, so that these are read less often.

use rayon::prelude::*;

use crate::norm::sum;
use crate::softmax::largest;
use crate::vector::{exp, widest};

/// Queries that meet the keys together.
const QUERIES: usize = 4;
/// Keys, or numbers of a value, that are summed side by side.
const LANES: usize = 8;

/// What an attention works on.
#[derive(Debug, Clone, Copy)]
pub struct AttentionSizes {
    /// Sequences.
    pub batch: usize,
    /// Heads side by side in a token.
    pub heads: usize,
    /// Tokens that ask.
    pub queries: usize,
    /// Tokens that are asked.
    pub keys: usize,
    /// Numbers of a head.
    pub width: usize,
}

/// `softmax(query · keyᵀ / √width) · value`, head by head.
///
/// `query` is `[batch, queries, heads · width]`, `key` and `value` `[batch, keys, heads · width]`; the result has the shape of
/// `query`.
///
/// # Panics
/// When the slices do not fit the sizes.
pub fn attend(sizes: AttentionSizes, query: &[f32], key: &[f32], value: &[f32]) -> Vec<f32> {
    let token = sizes.heads * sizes.width;
    let (asking, asked) = (sizes.queries * token, sizes.keys * token);
    assert_eq!(query.len(), sizes.batch * asking);
    assert_eq!(key.len(), sizes.batch * asked);
    assert_eq!(value.len(), sizes.batch * asked);
    let mut output = vec![0.0f32; query.len()];
    if query.is_empty() || key.is_empty() {
        return output;
    }
    output
        .par_chunks_mut(asking)
        .zip(query.par_chunks(asking))
        .zip(key.par_chunks(asked).zip(value.par_chunks(asked)))
        .for_each_init(
            || Room::new(sizes),
            |room, ((output, query), (key, value))| {
                for head in 0..sizes.heads {
                    one_head(sizes, head, query, key, value, room, output);
                }
            },
        );
    output
}

/// Keys, values and scores of the head at hand.
struct Room {
    /// `[width, keys]`, already divided by √width; rows filled up to whole lanes.
    keys: Vec<f32>,
    /// `[keys, width]`, the same.
    values: Vec<f32>,
    /// `[QUERIES, keys]`, the same.
    scores: Vec<f32>,
}

impl Room {
    fn new(sizes: AttentionSizes) -> Self {
        let keys = sizes.keys.next_multiple_of(LANES);
        Self {
            keys: vec![0.0; sizes.width * keys],
            values: vec![0.0; sizes.keys * sizes.width.next_multiple_of(LANES)],
            scores: vec![0.0; QUERIES * keys],
        }
    }
}

widest! {
    fn one_head(
        sizes: AttentionSizes,
        head: usize,
        query: &[f32],
        key: &[f32],
        value: &[f32],
        room: &mut Room,
        output: &mut [f32],
    ) {
        let AttentionSizes { heads, queries, keys, width, .. } = sizes;
        let (token, first) = (heads * width, head * width);
        let (row, wide) = (keys.next_multiple_of(LANES), width.next_multiple_of(LANES));
        let scale = (width as f32).sqrt().recip();
        for (place, key) in key.chunks_exact(token).enumerate() {
            for (number, key) in key[first..first + width].iter().enumerate() {
                room.keys[number * row + place] = key * scale;
            }
        }
        for (kept, value) in room.values.chunks_exact_mut(wide).zip(value.chunks_exact(token)) {
            kept[..width].copy_from_slice(&value[first..first + width]);
        }
        for start in (0..queries).step_by(QUERIES) {
            // The last ones ask again where there are fewer.
            let asking: [&[f32]; QUERIES] = std::array::from_fn(|i| {
                &query[(start + i).min(queries - 1) * token + first..][..width]
            });
            for lane in (0..row).step_by(LANES) {
                let mut sums = [[0.0f32; LANES]; QUERIES];
                for (number, keys) in room.keys.chunks_exact(row).enumerate() {
                    for (sums, asking) in sums.iter_mut().zip(asking) {
                        for (sum, key) in sums.iter_mut().zip(&keys[lane..lane + LANES]) {
                            *sum += asking[number] * key;
                        }
                    }
                }
                for (scores, sums) in room.scores.chunks_exact_mut(row).zip(sums) {
                    scores[lane..lane + LANES].copy_from_slice(&sums);
                }
            }
            for scores in room.scores.chunks_exact_mut(row) {
                let scores = &mut scores[..keys];
                let largest = largest(scores);
                for score in scores.iter_mut() {
                    *score = exp(*score - largest);
                }
                let share = (1.0 / sum(scores, |score| score)) as f32;
                for score in scores {
                    *score *= share;
                }
            }
            for lane in (0..wide).step_by(LANES) {
                let mut sums = [[0.0f32; LANES]; QUERIES];
                for (place, values) in room.values.chunks_exact(wide).enumerate() {
                    for (sums, scores) in sums.iter_mut().zip(room.scores.chunks_exact(row)) {
                        for (sum, value) in sums.iter_mut().zip(&values[lane..lane + LANES]) {
                            *sum += scores[place] * value;
                        }
                    }
                }
                let length = LANES.min(width - lane);
                for (query, sums) in (start..queries).zip(sums) {
                    let target = query * token + first + lane;
                    output[target..target + length].copy_from_slice(&sums[..length]);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: usize, seed: usize) -> Vec<f32> {
        (0..count)
            .map(|i| ((i * 7919 + seed * 104_729) % 1009) as f32 / 252.0 - 2.0)
            .collect()
    }

    /// The definition, in f64.
    fn by_definition(sizes: AttentionSizes, query: &[f32], key: &[f32], value: &[f32]) -> Vec<f64> {
        let AttentionSizes {
            batch,
            heads,
            queries,
            keys,
            width,
        } = sizes;
        let token = heads * width;
        let mut result = vec![0.0; query.len()];
        for sequence in 0..batch {
            for head in 0..heads {
                for asking in 0..queries {
                    let from = (sequence * queries + asking) * token + head * width;
                    let powers: Vec<f64> = (0..keys)
                        .map(|asked| {
                            let to = (sequence * keys + asked) * token + head * width;
                            let product = (0..width)
                                .map(|i| f64::from(query[from + i]) * f64::from(key[to + i]));
                            (product.sum::<f64>() / (width as f64).sqrt()).exp()
                        })
                        .collect();
                    let total: f64 = powers.iter().sum();
                    for (asked, power) in powers.iter().enumerate() {
                        let to = (sequence * keys + asked) * token + head * width;
                        for i in 0..width {
                            result[from + i] += power / total * f64::from(value[to + i]);
                        }
                    }
                }
            }
        }
        result
    }

    #[test]
    fn any_size_follows_the_definition() {
        // Sizes that fill lanes and groups of queries, and that do not.
        for [batch, heads, queries, keys, width] in [
            [1, 1, 1, 1, 1],
            [2, 3, 4, 8, 8],
            [3, 4, 17, 33, 28],
            [2, 4, 64, 64, 24],
            [1, 2, 5, 77, 40],
        ] {
            let sizes = AttentionSizes {
                batch,
                heads,
                queries,
                keys,
                width,
            };
            let query = numbers(batch * queries * heads * width, 1);
            let key = numbers(batch * keys * heads * width, 2);
            let value = numbers(batch * keys * heads * width, 3);
            let got = attend(sizes, &query, &key, &value);
            let want = by_definition(sizes, &query, &key, &value);
            for (place, (got, want)) in got.iter().zip(want).enumerate() {
                assert!(
                    (f64::from(*got) - want).abs() < 2e-5,
                    "{sizes:?} at {place}: {got} for {want}"
                );
            }
        }
    }
}
