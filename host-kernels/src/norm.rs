//! Group norm and RMS norm.

use rayon::prelude::*;

use crate::vector::{exp, widest};

/// Numbers worth a thread of their own.
const PER_TASK: usize = 1 << 14;
/// Sums that run side by side: exact enough for millions of numbers, and a vector's width.
const LANES: usize = 32;

/// What a group norm works on: `[batch, channels, area]`.
#[derive(Debug, Clone, Copy)]
pub struct GroupNormSizes {
    /// Channels; `groups` divides them.
    pub channels: usize,
    /// Groups of neighbouring channels that share mean and variance.
    pub groups: usize,
    /// Numbers per channel.
    pub area: usize,
}

/// Normalises every group in place, scales and shifts by channel, and then applies `x · sigmoid(x)` where `silu` asks.
///
/// # Panics
/// When the slices do not fit the sizes.
pub fn group_norm(
    values: &mut [f32],
    sizes: GroupNormSizes,
    scale: &[f32],
    shift: &[f32],
    epsilon: f32,
    silu: bool,
) {
    let GroupNormSizes {
        channels,
        groups,
        area,
    } = sizes;
    assert_eq!(channels % groups, 0, "groups of equal size");
    assert_eq!(values.len() % (channels * area), 0, "whole images");
    assert!(scale.len() == channels && shift.len() == channels);
    let per_group = channels / groups;
    values
        .par_chunks_mut(per_group * area)
        .with_min_len(PER_TASK.div_ceil(per_group * area))
        .enumerate()
        .for_each(|(index, values)| {
            let first = index % groups * per_group;
            let scale = &scale[first..first + per_group];
            let shift = &shift[first..first + per_group];
            one_group(values, area, scale, shift, epsilon, silu);
        });
}

widest! {
    fn one_group(values: &mut [f32], area: usize, scale: &[f32], shift: &[f32], epsilon: f32, silu: bool) {
        let (mean, factor) = moments(values, epsilon);
        for ((channel, scale), shift) in values.chunks_exact_mut(area).zip(scale).zip(shift) {
            let scale = scale * factor;
            if silu {
                for value in channel {
                    let normal = (*value - mean) * scale + shift;
                    *value = normal / (1.0 + exp(-normal));
                }
            } else {
                for value in channel {
                    *value = (*value - mean) * scale + shift;
                }
            }
        }
    }
}

/// Adds to every channel of `area` numbers its own number of `shifts`, which begin again where they end.
///
/// # Panics
/// When the values are not whole channels, or the shifts do not come out even.
pub fn shift_channels(values: &mut [f32], area: usize, shifts: &[f32]) {
    assert_eq!(values.len() % (area * shifts.len()), 0, "whole maps");
    let channels = values.chunks_exact_mut(area);
    for (channel, shift) in channels.zip(shifts.iter().cycle()) {
        for value in channel {
            *value += shift;
        }
    }
}

/// Divides every row of `scale.len()` numbers by the root of its mean square and `epsilon`, and scales it, in place.
///
/// # Panics
/// When the values are not whole rows.
pub fn rms_norm(values: &mut [f32], scale: &[f32], epsilon: f32) {
    let width = scale.len();
    assert_eq!(values.len() % width, 0, "whole rows");
    values
        .par_chunks_mut(width * PER_TASK.div_ceil(width))
        .for_each(|rows| rms_rows(rows, scale, epsilon));
}

widest! {
    fn rms_rows(values: &mut [f32], scale: &[f32], epsilon: f32) {
        for row in values.chunks_exact_mut(scale.len()) {
            let mean = sum(row, |value| value * value) / row.len() as f64;
            let factor = (1.0 / (mean + f64::from(epsilon)).sqrt()) as f32;
            for (value, scale) in row.iter_mut().zip(scale) {
                *value = *value * factor * scale;
            }
        }
    }
}

/// Mean, and one over the root of variance and `epsilon`.
#[inline(always)]
fn moments(values: &[f32], epsilon: f32) -> (f32, f32) {
    let count = values.len() as f64;
    let mean = (sum(values, |value| value) / count) as f32;
    let variance = sum(values, |value| (value - mean) * (value - mean)) / count;
    (mean, (1.0 / (variance + f64::from(epsilon)).sqrt()) as f32)
}

/// The sum of what `of` makes of each value.
#[inline(always)]
pub(crate) fn sum(values: &[f32], of: impl Fn(f32) -> f32) -> f64 {
    let mut sums = [0.0f32; LANES];
    let chunks = values.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (sum, value) in sums.iter_mut().zip(chunk) {
            *sum += of(*value);
        }
    }
    let rest: f64 = rest.iter().map(|value| f64::from(of(*value))).sum();
    rest + sums.iter().map(|sum| f64::from(*sum)).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: usize) -> Vec<f32> {
        (0..count)
            .map(|i| ((i * 37 + 11) % 101) as f32 / 25.0 - 1.3)
            .collect()
    }

    fn exact(values: &[f32], epsilon: f64) -> Vec<f64> {
        let count = values.len() as f64;
        let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / count;
        let variance = values
            .iter()
            .map(|v| (f64::from(*v) - mean).powi(2))
            .sum::<f64>()
            / count;
        values
            .iter()
            .map(|v| (f64::from(*v) - mean) / (variance + epsilon).sqrt())
            .collect()
    }

    #[test]
    fn groups_are_normalised_apart_and_channels_scaled_apart() {
        let (channels, groups, area) = (6, 3, 37);
        let values = numbers(2 * channels * area);
        let scale: Vec<f32> = (0..channels).map(|c| 1.0 + c as f32).collect();
        let shift: Vec<f32> = (0..channels).map(|c| 0.5 - c as f32).collect();
        for silu in [false, true] {
            let mut got = values.clone();
            let sizes = GroupNormSizes {
                channels,
                groups,
                area,
            };
            group_norm(&mut got, sizes, &scale, &shift, 1e-5, silu);
            for (group, span) in values.chunks(channels / groups * area).enumerate() {
                for (place, normal) in exact(span, 1e-5).into_iter().enumerate() {
                    let channel = group % groups * 2 + place / area;
                    let linear = normal * f64::from(scale[channel]) + f64::from(shift[channel]);
                    let want = if silu {
                        linear / (1.0 + (-linear).exp())
                    } else {
                        linear
                    };
                    let got = f64::from(got[group * 2 * area + place]);
                    assert!(
                        (got - want).abs() < 1e-5 + 1e-5 * want.abs(),
                        "{got} for {want}"
                    );
                }
            }
        }
    }

    #[test]
    fn rows_are_divided_by_their_root_mean_square() {
        let width = 37;
        let values = numbers(5 * width);
        let scale: Vec<f32> = (0..width).map(|c| 1.0 + c as f32 / 10.0).collect();
        let mut got = values.clone();
        rms_norm(&mut got, &scale, 1e-5);
        for (got, row) in got.chunks(width).zip(values.chunks(width)) {
            let mean = row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / width as f64;
            for ((got, value), scale) in got.iter().zip(row).zip(&scale) {
                let want = f64::from(*value) / (mean + 1e-5).sqrt() * f64::from(*scale);
                assert!((f64::from(*got) - want).abs() < 1e-5, "{got} for {want}");
            }
        }
    }
}
