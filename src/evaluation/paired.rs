//! Whether two methods differ on the same users: the mean difference with its interval, and a permutation test.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::interval::{BootstrapOptions, Interval, bootstrap_groups, group_sums};

/// Users up to which every flip of signs is tried.
const MOST_EXACT: usize = 14;
/// Flips drawn beyond; the smallest p is one more than their number's inverse.
const NUM_FLIPS: usize = 20_000;

/// `first − second` over the users that both have a value for.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PairedComparison {
    /// The mean difference, with its bootstrap interval over users.
    pub difference: Interval,
    /// Two-sided p of the permutation test: how often signs flipped at random give a mean at least as far from zero.
    pub p_value: f64,
    /// Users on whom the first is above the second.
    pub above: usize,
    /// Users on whom it is below.
    pub below: usize,
}

/// Compares two lists of values of the same users; a user without one of the two (`None`) counts for neither.
///
/// # Panics
/// When the lists are of different lengths.
pub fn compare_paired(
    first: &[Option<f64>],
    second: &[Option<f64>],
    options: &BootstrapOptions,
) -> PairedComparison {
    let alone: Vec<usize> = (0..first.len()).collect();
    compare_paired_groups(first, second, &alone, options)
}

/// The same where users with one number in `groups` are drawn, and flipped, together.
///
/// # Panics
/// When the lists are of different lengths.
pub fn compare_paired_groups(
    first: &[Option<f64>],
    second: &[Option<f64>],
    groups: &[usize],
    options: &BootstrapOptions,
) -> PairedComparison {
    let users = first.len();
    assert_eq!(users, second.len(), "users of a paired comparison");
    assert_eq!(users, groups.len(), "a group for every user");
    let (differences, groups): (Vec<f64>, Vec<usize>) = first
        .iter()
        .zip(second)
        .zip(groups)
        .filter_map(|((a, b), group)| Some(((*a)? - (*b)?, *group)))
        .unzip();
    let sums = group_sums(&differences, &groups);
    let sums: Vec<f64> = sums.into_iter().map(|(sum, _)| sum).collect();
    PairedComparison {
        difference: bootstrap_groups(&differences, &groups, options),
        p_value: permutation_p_value(&sums, options.seed),
        above: differences.iter().filter(|value| **value > 0.0).count(),
        below: differences.iter().filter(|value| **value < 0.0).count(),
    }
}

/// Two-sided p of the hypothesis that each difference is as likely as its negative; 1 of no difference.
///
/// All flips of signs for up to 14 users, 20,000 drawn with `seed` for more, the observed one counted among them.
pub fn permutation_p_value(differences: &[f64], seed: u64) -> f64 {
    let sizes: Vec<f64> = differences.iter().map(|value| value.abs()).collect();
    // Users without a difference change no sum.
    let sizes: Vec<f64> = sizes.into_iter().filter(|size| *size > 0.0).collect();
    let observed = differences.iter().sum::<f64>().abs();
    // Sums of the same numbers in another order differ in their last bits.
    let bound = observed - 1e-12 * sizes.iter().sum::<f64>();
    if sizes.len() <= MOST_EXACT {
        let all = 1u32 << sizes.len();
        let as_far = (0..all).filter(|signs| {
            let flipped = sizes.iter().enumerate().map(|(place, size)| {
                if signs >> place & 1 == 1 {
                    -size
                } else {
                    *size
                }
            });
            flipped.sum::<f64>().abs() >= bound
        });
        return as_far.count() as f64 / f64::from(all);
    }
    let mut random = ChaCha8Rng::seed_from_u64(seed ^ 0x7065_726d);
    let as_far = (0..NUM_FLIPS).filter(|_| {
        let flipped = sizes.iter().map(|size| {
            if random.random::<bool>() {
                -size
            } else {
                *size
            }
        });
        flipped.sum::<f64>().abs() >= bound
    });
    (as_far.count() + 1) as f64 / (NUM_FLIPS + 1) as f64
}
