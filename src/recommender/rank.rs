//! Ranked lists and how good they are.

use std::ops::Range;

use burn::tensor::{Tensor, backend::Backend};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::interactions::Interactions;
use super::neighbours::{host, largest};
use crate::nn::product::product;

/// Scores held on the host at once while ranking.
const SCORES_PER_BLOCK: usize = 1 << 22;

/// What a user's gain is divided by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ndcg {
    /// The gain of min(K, number of test items) hits at the top.
    #[default]
    Standard,
    /// The gain of the hits that the list itself holds among the largest K asked for, moved up and cut
    /// at K: what MICRO's authors report. It overstates.
    Micro,
}

/// How lists are judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RankingOptions {
    /// Lengths of the lists.
    pub cutoffs: Vec<usize>,
    /// Kind of NDCG.
    pub ndcg: Ndcg,
}

impl Default for RankingOptions {
    fn default() -> Self {
        Self {
            cutoffs: vec![10, 20],
            ndcg: Ndcg::Standard,
        }
    }
}

/// Per-user figures at one list length.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct RankingScores {
    /// Length of the lists.
    pub cutoff: usize,
    /// Hits over the user's test items.
    pub recall: Vec<f64>,
    /// Normalised discounted gain.
    pub ndcg: Vec<f64>,
    /// Hits over the list's length.
    pub precision: Vec<f64>,
    /// 1 where the list holds any test item.
    pub hit: Vec<f64>,
}

impl RankingScores {
    /// Mean recall over users.
    pub fn mean_recall(&self) -> f64 {
        mean(&self.recall)
    }

    /// Mean NDCG over users.
    pub fn mean_ndcg(&self) -> f64 {
        mean(&self.ndcg)
    }

    /// Mean precision over users.
    pub fn mean_precision(&self) -> f64 {
        mean(&self.precision)
    }

    /// Share of users with any hit.
    pub fn mean_hit(&self) -> f64 {
        mean(&self.hit)
    }
}

/// Arithmetic mean; 0 of nothing.
pub fn mean(values: &[f64]) -> f64 {
    if values.is_empty() {
        return 0.0;
    }
    values.iter().sum::<f64>() / values.len() as f64
}

/// The `count` best items by `scores`, without the sorted list `excluded`; the lower item first in a tie.
pub fn best_items(scores: &[f32], excluded: &[u32], count: usize) -> Vec<u32> {
    let mut scores = scores.to_vec();
    for &item in excluded {
        scores[item as usize] = f32::NEG_INFINITY;
    }
    largest(&scores, count.min(scores.len()))
        .into_iter()
        .filter(|&(item, _)| excluded.binary_search(&item).is_err())
        .map(|(item, _)| item)
        .collect()
}

/// 1 + the number of items, neither `item` nor in the sorted list `excluded`, that score above `score`.
pub fn rank_of(score: f32, item: u32, scores: &[f32], excluded: &[u32]) -> u32 {
    let higher = |&place: &u32| scores[place as usize] > score;
    let all = scores.iter().filter(|&&other| other > score).count();
    let skipped = excluded
        .iter()
        .filter(|&&place| place != item && higher(&place))
        .count();
    let own = usize::from(higher(&item));
    (1 + all - skipped - own) as u32
}

/// Judges the lists of all users with something in `relevant`; `scores` returns the scores of a range of
/// users, row after row, over all items. Items of `excluded` are not ranked.
pub fn evaluate(
    scores: impl Fn(Range<usize>) -> Vec<f32>,
    excluded: &[Vec<u32>],
    relevant: &Interactions,
    options: &RankingOptions,
) -> Vec<RankingScores> {
    let num_items = relevant.num_items();
    let num_users = relevant.num_users();
    let longest = options.cutoffs.iter().copied().max().unwrap_or(0);
    let block = (SCORES_PER_BLOCK / num_items.max(1)).max(1);
    let mut results: Vec<RankingScores> = options
        .cutoffs
        .iter()
        .map(|&cutoff| RankingScores {
            cutoff,
            ..Default::default()
        })
        .collect();
    for start in (0..num_users).step_by(block) {
        let users = start..(start + block).min(num_users);
        let block_scores = scores(users.clone());
        let rows: Vec<Vec<[f64; 4]>> = users
            .into_par_iter()
            .filter(|&user| !relevant.of(user).is_empty())
            .map(|user| {
                let row = &block_scores[(user - start) * num_items..(user - start + 1) * num_items];
                let list = best_items(row, &excluded[user], longest);
                let hits: Vec<bool> = list
                    .iter()
                    .map(|item| relevant.of(user).contains(item))
                    .collect();
                options
                    .cutoffs
                    .iter()
                    .map(|&cutoff| judge(&hits, relevant.of(user).len(), cutoff, options.ndcg))
                    .collect()
            })
            .collect();
        for row in rows {
            for (result, [recall, ndcg, precision, hit]) in results.iter_mut().zip(row) {
                result.recall.push(recall);
                result.ndcg.push(ndcg);
                result.precision.push(precision);
                result.hit.push(hit);
            }
        }
    }
    results
}

/// Judges final vectors `[users, width]` and `[items, width]` whose dot product is the score.
pub fn evaluate_embeddings<B: Backend>(
    users: &Tensor<B, 2>,
    items: &Tensor<B, 2>,
    excluded: &[Vec<u32>],
    relevant: &Interactions,
    options: &RankingOptions,
) -> Vec<RankingScores> {
    let items = items.clone().transpose();
    evaluate(
        |range| host(product(users.clone().slice([range]), items.clone())),
        excluded,
        relevant,
        options,
    )
}

/// Judges the floor that every trained model must beat: everyone gets the most popular items.
pub fn evaluate_popularity(
    train: &Interactions,
    excluded: &[Vec<u32>],
    relevant: &Interactions,
    options: &RankingOptions,
) -> Vec<RankingScores> {
    let counts: Vec<f32> = train.popularity().into_iter().map(|n| n as f32).collect();
    evaluate(
        |range| counts.repeat(range.len()),
        excluded,
        relevant,
        options,
    )
}

/// Recall, NDCG, precision and hit of one list whose places are marked as hits.
fn judge(hits: &[bool], num_relevant: usize, cutoff: usize, kind: Ndcg) -> [f64; 4] {
    let kept = &hits[..cutoff.min(hits.len())];
    let found = kept.iter().filter(|&&hit| hit).count();
    let discount = |place: usize| 1.0 / (place as f64 + 2.0).log2();
    let gain: f64 = kept
        .iter()
        .enumerate()
        .filter(|&(_, &hit)| hit)
        .map(|(place, _)| discount(place))
        // A sum of nothing is −0, which people would be shown.
        .fold(0.0, |sum, gain| sum + gain);
    let ideal_hits = match kind {
        Ndcg::Standard => num_relevant.min(cutoff),
        Ndcg::Micro => hits.iter().filter(|&&hit| hit).count().min(cutoff),
    };
    let ideal: f64 = (0..ideal_hits).map(discount).sum();
    let ndcg = if ideal > 0.0 { gain / ideal } else { 0.0 };
    [
        found as f64 / num_relevant as f64,
        ndcg,
        found as f64 / cutoff as f64,
        f64::from(u8::from(found > 0)),
    ]
}
