//! What costs nothing: pictures that are there already.

use burn::tensor::backend::Backend;
use image::RgbImage;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

use super::method::{DrawError, Method, MethodKind, Request};
use super::studio::Studio;

/// Which picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// The reference, unchanged.
    Reference,
    /// A picture of the history, drawn by user, reference and seed.
    History,
    /// The item nearest to the middle between the reference and its five nearest items of the history; neither of
    /// them, and none that is held out.
    Neighbour,
}

/// Shows a picture of the data.
pub struct Floor<'a, B: Backend> {
    /// The data.
    pub studio: &'a Studio<'a, B>,
    /// Which picture.
    pub choice: Choice,
}

impl<B: Backend> Floor<'_, B> {
    fn item(&self, request: &Request<'_>, seed: u64) -> Result<usize, DrawError> {
        let (history, reference) = (&request.history.history, request.sample.reference);
        match self.choice {
            Choice::Reference => Ok(reference),
            Choice::History if history.is_empty() => Err(DrawError::EmptyHistory),
            Choice::History => {
                let mut random = ChaCha8Rng::from_seed(key(seed, request));
                Ok(history[random.random_range(0..history.len())])
            }
            Choice::Neighbour => {
                neighbour(self.studio.visual, history, reference, self.studio.held_out)
                    .ok_or(DrawError::EmptyCatalogue)
            }
        }
    }
}

fn key(seed: u64, request: &Request<'_>) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(seed.to_le_bytes());
    for text in [&request.sample.user, &request.sample.reference_id] {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text.as_bytes());
    }
    hash.finalize().into()
}

/// See [`Choice::Neighbour`]; embeddings are at length one. The lower place in a tie.
pub fn neighbour(
    visual: &[Vec<f32>],
    history: &[usize],
    reference: usize,
    held_out: impl Fn(usize) -> bool,
) -> Option<usize> {
    let dot = |a: &[f32], b: &[f32]| -> f32 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
    let own = &visual[reference];
    let mut near: Vec<(usize, f32)> = history
        .iter()
        .map(|&item| (item, dot(&visual[item], own)))
        .collect();
    near.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    near.truncate(5);
    let mut middle = own.clone();
    for (item, _) in &near {
        for (sum, value) in middle.iter_mut().zip(&visual[*item]) {
            *sum += value / near.len() as f32;
        }
    }
    (0..visual.len())
        .filter(|item| *item != reference && !history.contains(item) && !held_out(*item))
        .map(|item| (item, dot(&visual[item], &middle)))
        .reduce(|best, next| if next.1 > best.1 { next } else { best })
        .map(|(item, _)| item)
}

impl<B: Backend> Method for Floor<'_, B> {
    fn name(&self) -> &'static str {
        match self.choice {
            Choice::Reference => "reference",
            Choice::History => "history",
            Choice::Neighbour => "neighbour",
        }
    }

    fn label(&self) -> &'static str {
        match self.choice {
            Choice::Reference => "The reference, unchanged",
            Choice::History => "A random history item",
            Choice::Neighbour => "The nearest item of the catalogue",
        }
    }

    fn kind(&self) -> MethodKind {
        MethodKind::Floor
    }

    fn fingerprint(&self) -> String {
        self.name().to_string()
    }

    fn draw(&self, requests: &[Request<'_>], seed: u64) -> Vec<Result<RgbImage, DrawError>> {
        requests
            .iter()
            .map(|request| Ok((self.studio.picture)(self.item(request, seed)?)?))
            .collect()
    }
}
