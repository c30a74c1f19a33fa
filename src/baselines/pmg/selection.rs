//! From preference and reference to candidates, and from candidates to one picture.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use crate::generation::choice;

/// Cosines below this count as this: their logarithm must exist.
const LEAST: f64 = 1e-3;

/// `reference + weight · (preference − reference)`. The weights of PMG's two conditions, made to add up to one (ours):
/// the generator then always gets a conditioning of usual size.
pub fn balance<B: Backend>(
    reference: Tensor<B, 3>,
    preference: Tensor<B, 3>,
    weight: f64,
) -> Tensor<B, 3> {
    reference.clone() + (preference - reference).mul_scalar(weight)
}

/// The place of the candidate with the largest `α log d_p + (1 − α) log d_t`, the first in a tie: `d_p` is its cosine
/// with the text of the preference, `d_t` with the text of the reference. All vectors are at length one.
pub fn best(candidates: &[Vec<f32>], preference: &[f32], reference: &[f32], alpha: f64) -> usize {
    let cosine = |a: &[f32], b: &[f32]| -> f64 {
        let sum: f64 = a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum();
        sum.max(LEAST)
    };
    let score = |image: &[f32]| {
        alpha * cosine(image, preference).ln() + (1.0 - alpha) * cosine(image, reference).ln()
    };
    choice::best(candidates.iter().map(|image| score(image)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alpha_weighs_preference_against_reference() {
        let (preference, reference) = ([1.0, 0.0], [0.0, 1.0]);
        let candidates = [vec![0.96, 0.28], vec![0.8, 0.6], vec![0.0, 1.0]];
        let chosen = |alpha| best(&candidates, &preference, &reference, alpha);
        assert_eq!(chosen(1.0), 0);
        assert_eq!(chosen(0.0), 2);
        // ½ log(0.8 · 0.6) is above ½ log(0.96 · 0.28) and ½ log(0.001 · 1).
        assert_eq!(chosen(0.5), 1);
        let opposed = [vec![-1.0, 0.0], vec![-0.5, 0.0]];
        assert_eq!(
            best(&opposed, &preference, &reference, 0.5),
            0,
            "a tie goes to the first"
        );
    }
}
