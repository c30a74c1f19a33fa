//! Bootstrap intervals over users, one by one or in groups that share something.

use std::collections::HashMap;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// How intervals are drawn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BootstrapOptions {
    /// Resamples of the users.
    pub num_resamples: usize,
    /// Share of resamples inside the interval.
    pub confidence: f64,
    /// Seed of the resamples.
    pub seed: u64,
}

impl Default for BootstrapOptions {
    fn default() -> Self {
        Self {
            num_resamples: 2000,
            confidence: 0.95,
            seed: 0,
        }
    }
}

/// A mean with its percentile bootstrap interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Mean over users.
    pub mean: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Number of users.
    pub count: usize,
}

impl Interval {
    /// Whether zero lies outside: for a difference, whether its sign is sure at this confidence.
    pub fn excludes_zero(&self) -> bool {
        self.count > 0 && (self.low > 0.0 || self.high < 0.0)
    }
}

/// The mean of one value per user, with its interval. Of no users: zeros with `count` 0.
pub fn bootstrap(values: &[f64], options: &BootstrapOptions) -> Interval {
    let alone: Vec<usize> = (0..values.len()).collect();
    bootstrap_groups(values, &alone, options)
}

/// The same where users with one number in `groups` are drawn together, all or none (the cluster bootstrap; Davison and
/// Hinkley, 1997, section 3.8): what they share moves all of them, and an interval over users alone is too narrow for it.
///
/// # Panics
/// When there are not as many groups as values.
pub fn bootstrap_groups(values: &[f64], groups: &[usize], options: &BootstrapOptions) -> Interval {
    assert_eq!(values.len(), groups.len(), "a group for every user");
    let count = values.len();
    if count == 0 {
        return Interval {
            mean: 0.0,
            low: 0.0,
            high: 0.0,
            count,
        };
    }
    let mean = values.iter().sum::<f64>() / count as f64;
    let mut random = ChaCha8Rng::seed_from_u64(options.seed);
    let sums = group_sums(values, groups);
    let mut means: Vec<f64> = (0..options.num_resamples.max(1))
        .map(|_| {
            let drawn = (0..sums.len()).map(|_| sums[random.random_range(0..sums.len())]);
            let (sum, users) = drawn.fold((0.0, 0), |(sum, users), group| {
                (sum + group.0, users + group.1)
            });
            sum / users as f64
        })
        .collect();
    means.sort_by(f64::total_cmp);
    let tail = (1.0 - options.confidence.clamp(0.0, 1.0)) / 2.0;
    Interval {
        mean,
        low: quantile(&means, tail),
        high: quantile(&means, 1.0 - tail),
        count,
    }
}

/// The mean difference `first − second` of the same users under two methods, with its interval.
///
/// # Panics
/// When the methods were judged on different numbers of users.
pub fn paired_difference(first: &[f64], second: &[f64], options: &BootstrapOptions) -> Interval {
    assert_eq!(first.len(), second.len(), "users of a paired comparison");
    let differences: Vec<f64> = first.iter().zip(second).map(|(a, b)| a - b).collect();
    bootstrap(&differences, options)
}

/// The sum and the number of each group's values, in the order of the groups' first appearance.
pub(super) fn group_sums(values: &[f64], groups: &[usize]) -> Vec<(f64, usize)> {
    let mut places = HashMap::new();
    let mut sums: Vec<(f64, usize)> = Vec::new();
    for (value, group) in values.iter().zip(groups) {
        let place = *places.entry(group).or_insert(sums.len());
        match sums.get_mut(place) {
            Some((sum, count)) => {
                *sum += value;
                *count += 1;
            }
            None => sums.push((*value, 1)),
        }
    }
    sums
}

/// Linear interpolation between the sorted values.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    let below = sorted[place.floor() as usize];
    let above = sorted[place.ceil() as usize];
    below + (above - below) * place.fract()
}
