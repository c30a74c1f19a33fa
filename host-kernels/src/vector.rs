//! Which vector instructions the processor has, and functions that vectorise.

use std::sync::OnceLock;

/// The widest vector instructions that the kernels use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Instructions {
    /// 16 numbers at once.
    Avx512,
    /// 8 numbers at once.
    Avx2,
    /// Whatever the compiler makes of plain loops.
    Portable,
}

/// What this processor offers, looked up once.
pub fn instructions() -> Instructions {
    static FOUND: OnceLock<Instructions> = OnceLock::new();
    *FOUND.get_or_init(detect)
}

#[cfg(target_arch = "x86_64")]
fn detect() -> Instructions {
    if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("fma") {
        Instructions::Avx512
    } else if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        Instructions::Avx2
    } else {
        Instructions::Portable
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn detect() -> Instructions {
    Instructions::Portable
}

/// Defines a function of plain loops that is compiled once per set of instructions and runs the widest that is there.
macro_rules! widest {
    ($(#[$meta:meta])* $visibility:vis fn $name:ident($($argument:ident: $type:ty),* $(,)?) $body:block) => {
        $(#[$meta])*
        $visibility fn $name($($argument: $type),*) {
            #[inline(always)]
            fn portable($($argument: $type),*) $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx2,fma")]
            fn avx512($($argument: $type),*) {
                portable($($argument),*)
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2($($argument: $type),*) {
                portable($($argument),*)
            }

            match $crate::vector::instructions() {
                // SAFETY: the processor was found to have these instructions.
                #[cfg(target_arch = "x86_64")]
                $crate::vector::Instructions::Avx512 => unsafe { avx512($($argument),*) },
                #[cfg(target_arch = "x86_64")]
                $crate::vector::Instructions::Avx2 => unsafe { avx2($($argument),*) },
                _ => portable($($argument),*),
            }
        }
    };
}
pub(crate) use widest;

/// `e^x` within two units of the last place, nothing below −87, as `e^88` above 88; without a branch, so that loops vectorise.
///
/// Nothing, and not the least that there is: a share of that would be subnormal, which some processors compute with far
/// more slowly, and every masked key would have such a weight.
///
/// `x = n ln 2 + r` with `|r| ≤ ln 2 / 2`, and a polynomial of `r` (Cephes' coefficients).
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // Adding this leaves the nearest integer in the last bits of the mantissa.
    const ROUND: f32 = 12_582_912.0;
    const LEAST: f32 = -87.0;
    let nothing = x < LEAST;
    let x = x.clamp(LEAST, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let whole = shifted - ROUND;
    let rest = x - whole * 0.693_359_375 + whole * 2.121_944_4e-4;
    let mut sum = 1.987_569_1e-4;
    for coefficient in [
        1.398_199_9e-3,
        8.333_452e-3,
        4.166_579_6e-2,
        1.666_666_5e-1,
        5e-1,
    ] {
        sum = sum * rest + coefficient;
    }
    let fraction = sum * rest * rest + rest + 1.0;
    let power = fraction * f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0f32.to_bits()));
    if nothing { 0.0 } else { power }
}

/// The error function within 2e-7 (Abramowitz and Stegun, 7.1.26).
#[inline(always)]
pub(crate) fn erf(x: f32) -> f32 {
    let t = 1.0 / (1.0 + 0.327_591_1 * x.abs());
    let mut sum = 1.061_405_4;
    for coefficient in [-1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6] {
        sum = sum * t + coefficient;
    }
    (1.0 - sum * t * exp(-x * x)).copysign(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_follows_the_exact_one() {
        for step in -8_600..=8_700 {
            let x = step as f32 / 100.0;
            let exact = f64::from(x).exp();
            let error = (f64::from(exp(x)) - exact).abs() / exact;
            assert!(error < 3e-7, "exp({x}): {error:e}");
        }
        assert!(exp(f32::NAN).is_nan());
        for x in [-87.01, -1e9, f32::NEG_INFINITY] {
            assert_eq!(exp(x), 0.0, "exp({x})");
        }
    }

    #[test]
    fn erf_follows_tabled_values() {
        // Abramowitz and Stegun, table 7.1.
        for (x, exact) in [
            (0.0, 0.0),
            (0.1, 0.112_462_92),
            (0.5, 0.520_499_9),
            (1.0, 0.842_700_8),
            (2.0, 0.995_322_3),
            (6.0, 1.0),
        ] {
            assert!((erf(x) - exact).abs() < 3e-7, "erf({x})");
            assert!((erf(-x) + exact).abs() < 3e-7, "erf(-{x})");
        }
    }
}
