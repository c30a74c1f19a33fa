//! Several drawings of one sample, of which one is kept.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use super::sample::Sample;

/// Says which drawing of a sample to keep.
pub trait Chooser<B: Backend> {
    /// The place of the best of each sample's `candidates` images, a number below `candidates` for each sample.
    ///
    /// # Shapes
    /// `images` is `[samples · candidates, 3, height, width]` in [−1, 1], those of a sample together.
    fn choose(&self, samples: &[&Sample], candidates: usize, images: Tensor<B, 4>) -> Vec<usize>;
}

/// The place of the largest number, the first in a tie; what is no number loses to all that are.
pub fn best(values: impl IntoIterator<Item = f64>) -> usize {
    let mut best = (0, f64::NEG_INFINITY);
    for (place, value) in values.into_iter().enumerate() {
        if value > best.1 {
            best = (place, value);
        }
    }
    best.0
}

/// How many drawings a sample gets, and who chooses.
pub struct Choice<'a, B: Backend> {
    /// Drawings of each sample, each from a latent of its own.
    pub candidates: usize,
    /// Keeps one.
    pub chooser: &'a dyn Chooser<B>,
}

// Derived, they would ask `B` to be copied too.
impl<B: Backend> Clone for Choice<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B: Backend> Copy for Choice<'_, B> {}

#[cfg(test)]
mod tests {
    use super::best;

    #[test]
    fn a_tie_goes_to_the_first_and_broken_numbers_lose() {
        assert_eq!(best([1.0, 3.0, 3.0]), 1);
        assert_eq!(best([f64::NAN, -2.0, f64::NAN]), 1);
        assert_eq!(best([f64::NAN, f64::NAN]), 0);
    }
}
