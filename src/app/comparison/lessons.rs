//! What PMG learns from.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::app::assembly::DataSet;
use crate::app::config::RunConfig;
use crate::data::history::{History, Split};

/// Items that training users took, each in the reference's place of a history without it; never a held-out one.
pub(super) fn lessons(config: &RunConfig, data: &DataSet) -> Vec<History> {
    let pmg = &config.baselines.pmg;
    let mut lessons = Vec::new();
    for (number, history) in data
        .users(Split::Train, config.data.train_users)
        .iter()
        .enumerate()
    {
        let mut random = ChaCha8Rng::seed_from_u64(pmg.training.seed);
        random.set_stream(number as u64);
        let mut places: Vec<usize> = (0..history.history.len())
            .filter(|place| !data.is_held_out(history.history[*place]))
            .collect();
        places.shuffle(&mut random);
        for place in places.into_iter().take(pmg.items_per_user) {
            let mut rest = history.history.clone();
            let reference = rest.remove(place);
            if rest.len() < config.preparation.min_history {
                continue;
            }
            lessons.push(History {
                user: history.user.clone(),
                history: rest,
                reference,
                target: None,
                split: Some(Split::Train),
            });
        }
    }
    lessons
}
