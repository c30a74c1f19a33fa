//! The order of users: each epoch is a permutation of all, drawn from the seed and the epoch.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

/// Which samples a step takes. It depends on the step's number alone, so there is no position to save.
#[derive(Debug, Clone)]
pub(super) struct Sampler {
    seed: u64,
    count: usize,
    batch_size: usize,
    /// The order of the epoch asked for last.
    epoch: Option<(u64, Vec<usize>)>,
}

impl Sampler {
    pub fn new(seed: u64, count: usize, batch_size: usize) -> Self {
        Self {
            seed,
            count,
            batch_size,
            epoch: None,
        }
    }

    /// Places of the samples of step `number`.
    pub fn batch(&mut self, number: usize) -> Vec<usize> {
        let first = number * self.batch_size;
        (first..first + self.batch_size)
            .map(|place| self.at(place))
            .collect()
    }

    fn at(&mut self, place: usize) -> usize {
        let epoch = (place / self.count) as u64;
        if self.epoch.as_ref().is_none_or(|(known, _)| *known != epoch) {
            let mut generator = ChaCha8Rng::seed_from_u64(self.seed);
            generator.set_stream(epoch);
            let mut order: Vec<usize> = (0..self.count).collect();
            order.shuffle(&mut generator);
            self.epoch = Some((epoch, order));
        }
        match &self.epoch {
            Some((_, order)) => order[place % self.count],
            None => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_epoch_sees_everyone_once_and_in_another_order() {
        let mut sampler = Sampler::new(3, 7, 2);
        let places: Vec<usize> = (0..7).flat_map(|step| sampler.batch(step)).collect();
        let (first, second) = places.split_at(7);
        for epoch in [first, second] {
            let mut sorted = epoch.to_vec();
            sorted.sort_unstable();
            assert_eq!(sorted, [0, 1, 2, 3, 4, 5, 6]);
        }
        assert_ne!(first, second);
        assert_eq!(
            Sampler::new(3, 7, 2).batch(5),
            places[10..12],
            "from any step"
        );
    }
}
