//! Activations.

use rayon::prelude::*;

use crate::vector::{erf, exp, widest};

/// Numbers worth a thread of their own.
const PER_TASK: usize = 1 << 14;

/// `x · sigmoid(steepness · x)` in place: SiLU at a steepness of 1, CLIP's quick GELU at 1.702.
pub fn silu(values: &mut [f32], steepness: f32) {
    values
        .par_chunks_mut(PER_TASK)
        .for_each(|values| silu_of(values, steepness));
}

widest! {
    fn silu_of(values: &mut [f32], steepness: f32) {
        for value in values {
            *value /= 1.0 + exp(-steepness * *value);
        }
    }
}

/// `gate · sigmoid(gate) · value` in place of the gates.
///
/// # Panics
/// When there are not as many values as gates.
pub fn gated_silu(gates: &mut [f32], values: &[f32]) {
    assert_eq!(gates.len(), values.len(), "a value for every gate");
    gates
        .par_chunks_mut(PER_TASK)
        .zip(values.par_chunks(PER_TASK))
        .for_each(|(gates, values)| gated_silu_of(gates, values));
}

widest! {
    fn gated_silu_of(gates: &mut [f32], values: &[f32]) {
        for (gate, value) in gates.iter_mut().zip(values) {
            *gate = *gate / (1.0 + exp(-*gate)) * value;
        }
    }
}

/// GELU by the error function, in place.
pub fn gelu(values: &mut [f32]) {
    values.par_chunks_mut(PER_TASK).for_each(gelu_of);
}

widest! {
    fn gelu_of(values: &mut [f32]) {
        for value in values {
            *value = one_gelu(*value);
        }
    }
}

#[inline(always)]
fn one_gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))
}

/// `value · gelu(gate)`, GELU by the error function.
///
/// `values` holds rows of `2 · width` numbers, each a row's values and then its gates; the result has rows of `width`.
///
/// # Panics
/// When `values` does not hold whole rows.
pub fn gated_gelu(values: &[f32], width: usize) -> Vec<f32> {
    assert_eq!(values.len() % (2 * width), 0, "whole rows of {width} pairs");
    let mut output = vec![0.0; values.len() / 2];
    let rows = PER_TASK.div_ceil(width);
    output
        .par_chunks_mut(rows * width)
        .zip(values.par_chunks(rows * 2 * width))
        .for_each(|(output, values)| gate_rows(values, width, output));
    output
}

widest! {
    fn gate_rows(values: &[f32], width: usize, output: &mut [f32]) {
        for (output, row) in output.chunks_exact_mut(width).zip(values.chunks_exact(2 * width)) {
            let (values, gates) = row.split_at(width);
            for ((output, value), gate) in output.iter_mut().zip(values).zip(gates) {
                *output = value * one_gelu(*gate);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn activations_follow_tabled_values() {
        let mut values = [-100.0, -1.0, 0.0, 1.0, 100.0];
        gelu(&mut values);
        for (got, want) in values
            .iter()
            .zip([0.0, -0.158_655_3, 0.0, 0.841_344_7, 100.0])
        {
            assert!((got - want).abs() < 1e-6, "gelu: {got} for {want}");
        }
        let mut values = [-100.0, -1.0, 0.0, 1.0, 100.0];
        silu(&mut values, 1.0);
        for (got, want) in values
            .iter()
            .zip([0.0, -0.268_941_4, 0.0, 0.731_058_6, 100.0])
        {
            assert!((got - want).abs() < 1e-6, "silu: {got} for {want}");
        }
    }

    #[test]
    fn silu_gates_multiply_their_own_values() {
        let mut got = [0.0, 1.0, -1.0, 100.0];
        gated_silu(&mut got, &[5.0, 2.0, 3.0, -1.0]);
        let want = [0.0, 2.0 * 0.731_058_6, 3.0 * -0.268_941_4, -100.0];
        for (got, want) in got.iter().zip(want) {
            assert!((got - want).abs() < 1e-5, "{got} for {want}");
        }
    }

    #[test]
    fn gates_multiply_their_own_values() {
        // Rows of two: values (1, 2), gates (0, 1); values (3, −1), gates (−1, 100).
        let got = gated_gelu(&[1.0, 2.0, 0.0, 1.0, 3.0, -1.0, -1.0, 100.0], 2);
        let want = [0.0, 2.0 * 0.841_344_7, 3.0 * -0.158_655_3, -100.0];
        for (got, want) in got.iter().zip(want) {
            assert!((got - want).abs() < 1e-5, "{got} for {want}");
        }
    }
}
