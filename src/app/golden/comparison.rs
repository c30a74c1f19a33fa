//! How far a computed output lies from the recorded one, and how far it may.

use burn::tensor::TensorData;
use serde::Serialize;

/// The largest error allowed: `atol + rtol ·` the recorded output's largest absolute value.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Tolerance {
    /// Absolute part.
    pub atol: f64,
    /// Part relative to the output's largest absolute value.
    pub rtol: f64,
}

impl Tolerance {
    /// For outputs of many steps, each of which magnifies the error of those before.
    pub fn amplified(self) -> Self {
        Self {
            atol: self.atol.max(1e-3),
            rtol: self.rtol,
        }
    }
}

/// One line of the proof.
#[derive(Debug, Clone, Serialize)]
pub struct Comparison {
    /// The output.
    pub name: String,
    /// Its recorded shape.
    pub shape: Vec<usize>,
    /// Largest absolute difference; for token ids the number of places that differ.
    pub error: f64,
    /// The same over the largest absolute recorded value; for token ids over their number.
    pub relative: f64,
    /// Cosine between both outputs as vectors; none where one of them is zero.
    pub cosine: Option<f64>,
    /// What `error` may be.
    pub bound: f64,
    /// Is it within?
    pub passed: bool,
    /// Why there is nothing to compare.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Comparison {
    /// Compares numbers within `tolerance`, integers exactly.
    pub fn new(
        name: &str,
        expected: &TensorData,
        found: &TensorData,
        tolerance: Tolerance,
    ) -> Self {
        if expected.shape != found.shape {
            let shapes = (expected.shape.to_vec(), found.shape.to_vec());
            let reason = format!("shape {:?}, recorded is {:?}", shapes.1, shapes.0);
            return Self::failed(name, expected, reason);
        }
        if expected.dtype.is_float() {
            Self::numbers(name, expected, found, tolerance)
        } else {
            Self::identifiers(name, expected, found)
        }
    }

    /// An output that could not be compared.
    pub fn failed(name: &str, expected: &TensorData, reason: String) -> Self {
        Self {
            name: name.into(),
            shape: expected.shape.to_vec(),
            error: f64::INFINITY,
            relative: f64::INFINITY,
            cosine: None,
            bound: 0.0,
            passed: false,
            reason: Some(reason),
        }
    }

    fn numbers(
        name: &str,
        expected: &TensorData,
        found: &TensorData,
        tolerance: Tolerance,
    ) -> Self {
        let (mut error, mut largest) = (0f64, 0f64);
        let (mut product, mut norms) = (0f64, [0f64; 2]);
        for (e, f) in expected.iter::<f64>().zip(found.iter::<f64>()) {
            // A comparison with none is false: what is no number counts as infinitely far.
            let difference = (e - f).abs();
            error = if difference.is_nan() {
                f64::INFINITY
            } else {
                error.max(difference)
            };
            largest = largest.max(e.abs());
            product += e * f;
            norms[0] += e * e;
            norms[1] += f * f;
        }
        let bound = tolerance.atol + tolerance.rtol * largest;
        let norm = (norms[0] * norms[1]).sqrt();
        Self {
            name: name.into(),
            shape: expected.shape.to_vec(),
            error,
            relative: if largest > 0.0 {
                error / largest
            } else {
                error
            },
            cosine: (norm > 0.0).then(|| product / norm),
            bound,
            passed: error <= bound,
            reason: None,
        }
    }

    fn identifiers(name: &str, expected: &TensorData, found: &TensorData) -> Self {
        let pairs = expected.iter::<i64>().zip(found.iter::<i64>());
        let different = pairs.filter(|(e, f)| e != f).count();
        let count: usize = expected.shape.iter().product();
        Self {
            name: name.into(),
            shape: expected.shape.to_vec(),
            error: different as f64,
            relative: different as f64 / count.max(1) as f64,
            cosine: None,
            bound: 0.0,
            passed: different == 0,
            reason: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOLERANCE: Tolerance = Tolerance {
        atol: 1e-5,
        rtol: 1e-4,
    };

    fn compare(expected: TensorData, found: TensorData) -> Comparison {
        Comparison::new("x", &expected, &found, TOLERANCE)
    }

    #[test]
    fn the_bound_grows_with_the_largest_value() {
        let near = compare([10.0f32, 0.0].into(), [10.0f32, 0.000_9].into());
        assert!(near.passed, "{near:?}");
        let far = compare([10.0f32, 0.0].into(), [10.0f32, 0.001_1].into());
        assert!(!far.passed, "{far:?}");
        assert!((far.relative - 1.1e-4).abs() < 1e-8);
        assert!(far.cosine.unwrap() > 0.999);
    }

    #[test]
    fn what_is_no_number_fails() {
        let found = compare([1.0f32, 2.0, 3.0].into(), [1.0f32, f32::NAN, 3.0].into());
        assert!(!found.passed && found.error.is_infinite(), "{found:?}");
    }

    #[test]
    fn identifiers_are_equal_or_not() {
        assert!(compare([1i64, 2].into(), [1i32, 2].into()).passed);
        let found = compare([1i64, 2].into(), [1i64, 3].into());
        assert_eq!((found.passed, found.error), (false, 1.0));
    }

    #[test]
    fn another_shape_is_said() {
        let found = compare([1.0f32, 2.0].into(), [1.0f32].into());
        assert!(found.reason.unwrap().contains("[1]"));
    }
}
