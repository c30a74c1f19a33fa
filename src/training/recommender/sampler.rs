//! Batches of training triples.

use rand::Rng;
use rand::seq::index;
use rand_chacha::ChaCha8Rng;

use crate::recommender::step::Batch;
use crate::recommender::{Interactions, RecommenderError};

/// Draws users uniformly, and for each an item they took and one they did not.
#[derive(Debug)]
pub struct Sampler<'a> {
    train: &'a Interactions,
    /// Users with something to like and something not to.
    users: Vec<u32>,
    sorted: Vec<Vec<u32>>,
    batch_size: usize,
    contrasted_items: usize,
}

impl<'a> Sampler<'a> {
    /// Triples of the given interactions, `batch_size` at a time.
    ///
    /// # Errors
    /// When no user has both an item and an item left to prefer it to.
    pub fn new(train: &'a Interactions, batch_size: usize) -> Result<Self, RecommenderError> {
        let users: Vec<u32> = (0..train.num_users())
            .filter(|&user| (1..train.num_items()).contains(&train.of(user).len()))
            .map(|user| user as u32)
            .collect();
        if users.is_empty() {
            return Err(RecommenderError::NoInteractions);
        }
        Ok(Self {
            train,
            users,
            sorted: train.sorted(),
            batch_size,
            contrasted_items: 0,
        })
    }

    /// The same, drawing so many items per batch for the contrastive loss; 0 or a whole catalogue for all.
    pub fn with_contrasted_items(mut self, count: usize) -> Self {
        self.contrasted_items = if count < self.train.num_items() {
            count
        } else {
            0
        };
        self
    }

    /// Batches of an epoch: not a pass over the interactions, but as many triples, one batch more.
    pub fn num_batches(&self) -> usize {
        self.train.len() / self.batch_size + 1
    }

    /// The next batch. Users are distinct if there are as many as the batch asks for.
    pub fn draw(&self, random: &mut ChaCha8Rng) -> Batch {
        let users: Vec<u32> = if self.batch_size <= self.users.len() {
            index::sample(random, self.users.len(), self.batch_size)
                .into_iter()
                .map(|place| self.users[place])
                .collect()
        } else {
            (0..self.batch_size)
                .map(|_| self.users[random.random_range(0..self.users.len())])
                .collect()
        };
        let mut batch = Batch {
            users,
            ..Default::default()
        };
        for &user in &batch.users {
            let items = self.train.of(user as usize);
            batch
                .positives
                .push(items[random.random_range(0..items.len())]);
            let known = &self.sorted[user as usize];
            let negative = loop {
                let item = random.random_range(0..self.train.num_items() as u32);
                if known.binary_search(&item).is_err() {
                    break item;
                }
            };
            batch.negatives.push(negative);
        }
        if self.contrasted_items > 0 {
            let drawn = index::sample(random, self.train.num_items(), self.contrasted_items);
            batch.contrasted = drawn.into_iter().map(|item| item as u32).collect();
        }
        batch
    }
}
