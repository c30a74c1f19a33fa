//! What the ranking model says of generated images, and how well it ranks.

use serde::{Deserialize, Serialize};

use super::interval::{BootstrapOptions, Interval, bootstrap};
use crate::recommender::rank::RankingScores;

/// Rank change of one user, `(rank_ref − rank_gen) / rank_ref`: at most below 1, negative when the generated
/// image ranks lower than the reference. The paper's formula is lost; this form fits all its values.
pub fn rank_change(reference: usize, generated: usize) -> f64 {
    let reference = reference.max(1) as f64;
    (reference - generated as f64) / reference
}

/// ΔR over users, from `(reference, generated)` ranks.
pub fn mean_rank_change(ranks: &[(usize, usize)], options: &BootstrapOptions) -> Interval {
    let changes: Vec<f64> = ranks
        .iter()
        .map(|&(reference, generated)| rank_change(reference, generated))
        .collect();
    bootstrap(&changes, options)
}

/// Recall and NDCG at one list length, with intervals.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RankingIntervals {
    /// Length of the lists.
    pub cutoff: usize,
    /// Recall@K.
    pub recall: Interval,
    /// NDCG@K.
    pub ndcg: Interval,
}

/// The intervals of per-user ranking figures.
pub fn ranking_intervals(
    scores: &[RankingScores],
    options: &BootstrapOptions,
) -> Vec<RankingIntervals> {
    scores
        .iter()
        .map(|score| RankingIntervals {
            cutoff: score.cutoff,
            recall: bootstrap(&score.recall, options),
            ndcg: bootstrap(&score.ndcg, options),
        })
        .collect()
}
