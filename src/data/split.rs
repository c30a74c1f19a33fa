//! Splits: which interactions train the ranking model, and which users train the preference model.

use std::collections::BTreeMap;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::history::{History, Interaction, Split};

/// Interactions by use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InteractionSplit {
    pub train: Vec<Interaction>,
    pub validation: Vec<Interaction>,
    pub test: Vec<Interaction>,
}

/// Splits each user's interactions by time: the last `test_share` of them test, those before validate, the rest
/// trains. Every user keeps at least one to train on; a user with fewer than three gives none away. Equal times keep
/// the file's order.
pub fn by_time(
    interactions: &[Interaction],
    validation_share: f64,
    test_share: f64,
) -> InteractionSplit {
    let mut users: BTreeMap<&str, Vec<&Interaction>> = BTreeMap::new();
    for interaction in interactions {
        users
            .entry(&interaction.user)
            .or_default()
            .push(interaction);
    }
    let mut split = InteractionSplit::default();
    for mut own in users.into_values() {
        own.sort_by_key(|interaction| interaction.timestamp);
        let (num_validation, num_test) = if own.len() < 3 {
            (0, 0)
        } else {
            let share = |part: f64| (own.len() as f64 * part).round() as usize;
            let num_test = share(test_share).min(own.len() - 1);
            (
                share(validation_share).min(own.len() - 1 - num_test),
                num_test,
            )
        };
        let num_train = own.len() - num_validation - num_test;
        let parts = [
            (&mut split.train, 0..num_train),
            (&mut split.validation, num_train..num_train + num_validation),
            (&mut split.test, num_train + num_validation..own.len()),
        ];
        for (part, range) in parts {
            part.extend(own[range].iter().map(|&interaction| interaction.clone()));
        }
    }
    split
}

/// Gives a split to every history that has none: users, not lines, are dealt out, so that nobody is in two splits.
/// A user whose other lines have a split follows them.
pub fn assign_missing(
    histories: &mut [History],
    validation_share: f64,
    test_share: f64,
    rng_seed: u64,
) {
    let mut users: BTreeMap<String, Option<Split>> = BTreeMap::new();
    for history in histories.iter() {
        let known = users.entry(history.user.clone()).or_default();
        *known = known.or(history.split);
    }
    let mut open: Vec<String> = users
        .iter()
        .filter(|(_, split)| split.is_none())
        .map(|(user, _)| user.clone())
        .collect();
    open.shuffle(&mut ChaCha8Rng::seed_from_u64(rng_seed));
    let share = |part: f64| (open.len() as f64 * part).round() as usize;
    let (num_validation, num_test) = (share(validation_share), share(test_share));
    for (number, user) in open.into_iter().enumerate() {
        let split = if number < num_validation {
            Split::Validation
        } else if number < num_validation + num_test {
            Split::Test
        } else {
            Split::Train
        };
        users.insert(user, Some(split));
    }
    for history in histories.iter_mut() {
        if history.split.is_none() {
            history.split = users[&history.user];
        }
    }
}
