//! Rotary position embeddings, half-split.

use rayon::prelude::*;

use crate::vector::widest;

/// Numbers worth a thread of their own.
const PER_TASK: usize = 1 << 14;

/// Rotates the `heads` of every token, `width` numbers each, in place: `(first, second)` halves as real and imaginary parts.
///
/// `cosines` and `sines` hold `width / 2` numbers for each token of a run; runs follow each other in `values`.
///
/// # Panics
/// When the values are not whole runs.
pub fn rotate(values: &mut [f32], heads: usize, width: usize, cosines: &[f32], sines: &[f32]) {
    let run = 2 * cosines.len() * heads;
    assert!(
        width.is_multiple_of(2) && run.is_multiple_of(heads * width),
        "whole tokens"
    );
    assert!(
        sines.len() == cosines.len() && values.len().is_multiple_of(run),
        "whole runs"
    );
    values
        .par_chunks_mut(run)
        .with_min_len(PER_TASK.div_ceil(run))
        .for_each(|run| rotate_run(run, heads, width, cosines, sines));
}

widest! {
    fn rotate_run(values: &mut [f32], heads: usize, width: usize, cosines: &[f32], sines: &[f32]) {
        let half = width / 2;
        let tables = cosines.chunks_exact(half).zip(sines.chunks_exact(half));
        for (token, (cosines, sines)) in values.chunks_exact_mut(heads * width).zip(tables) {
            for head in token.chunks_exact_mut(width) {
                let (first, second) = head.split_at_mut(half);
                for (((first, second), cosine), sine) in first.iter_mut().zip(second).zip(cosines).zip(sines) {
                    let (real, imaginary) = (*first, *second);
                    *first = real * cosine - imaginary * sine;
                    *second = imaginary * cosine + real * sine;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quarter_turns_swap_the_halves() {
        // Two tokens with two heads of width 4; the second token turns by a quarter.
        let (cosines, sines) = ([1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]);
        let token = [1.0, 2.0, 3.0, 4.0];
        let mut values = [token; 4].concat();
        rotate(&mut values, 2, 4, &cosines, &sines);
        let turned = [-3.0, -4.0, 1.0, 2.0];
        assert_eq!(values, [token, token, turned, turned].concat());
    }
}
