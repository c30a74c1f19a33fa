//! Fréchet distance of two sets of pictures (Heusel et al., 2017): how far apart two clouds of features are, each taken
//! as a normal distribution. With Inception's features it is called FID, with CLIP's CLIP-FID; the two must not be
//! compared.

use super::symmetric::{eigen, eigenvalues};

/// Two sets that have no distance.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FrechetError {
    /// Fewer than two pictures have no covariance.
    #[error(
        "the Fréchet distance needs at least two pictures on each side, there are {first} and {second}"
    )]
    TooFew {
        /// Of the first set.
        first: usize,
        /// Of the second set.
        second: usize,
    },
    /// Features of different encoders.
    #[error("features of {first} and {second} values do not come from one encoder")]
    Width {
        /// Of the first set.
        first: usize,
        /// Of the second set.
        second: usize,
    },
    /// A feature is infinite or no number.
    #[error("a feature is not a finite number: the encoder failed on a picture")]
    NotFinite,
}

/// Mean and covariance of features, taken up one by one: any number of pictures in the memory of one.
#[derive(Debug, Clone, PartialEq)]
pub struct FeatureStatistics {
    count: usize,
    mean: Vec<f64>,
    /// Sum of the products of deviations from the mean, row after row.
    products: Vec<f64>,
}

impl FeatureStatistics {
    /// Of no picture, for features of `width` values.
    pub fn new(width: usize) -> Self {
        Self {
            count: 0,
            mean: vec![0.0; width],
            products: vec![0.0; width * width],
        }
    }

    /// Pictures taken up.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Takes up one picture's feature (Welford's update).
    ///
    /// # Panics
    /// When it has another width.
    pub fn add(&mut self, feature: &[f32]) {
        let width = self.mean.len();
        assert_eq!(feature.len(), width, "width of a feature");
        self.count += 1;
        let count = self.count as f64;
        let before: Vec<f64> = feature
            .iter()
            .zip(&self.mean)
            .map(|(value, mean)| f64::from(*value) - mean)
            .collect();
        for (mean, before) in self.mean.iter_mut().zip(&before) {
            *mean += before / count;
        }
        let share = (count - 1.0) / count;
        for (row, own) in self.products.chunks_mut(width).zip(&before) {
            for (cell, other) in row.iter_mut().zip(&before) {
                *cell += share * own * other;
            }
        }
    }

    /// The covariance, divided by one less than the count.
    fn covariance(&self) -> Vec<f64> {
        let scale = 1.0 / (self.count as f64 - 1.0);
        self.products.iter().map(|value| value * scale).collect()
    }
}

/// `|μ₁ − μ₂|² + tr(Σ₁ + Σ₂ − 2 (Σ₁ Σ₂)^½)`; 0 for equal sets.
///
/// The root's trace is that of `(Σ₁^½ Σ₂ Σ₁^½)^½`, whose matrix is symmetric, so few pictures and covariances without
/// full rank need no correction.
///
/// # Errors
/// Fewer than two pictures on a side, different widths, features that are no finite numbers.
pub fn frechet_distance(
    first: &FeatureStatistics,
    second: &FeatureStatistics,
) -> Result<f64, FrechetError> {
    let width = first.mean.len();
    if width != second.mean.len() {
        return Err(FrechetError::Width {
            first: width,
            second: second.mean.len(),
        });
    }
    if first.count < 2 || second.count < 2 {
        return Err(FrechetError::TooFew {
            first: first.count,
            second: second.count,
        });
    }
    let apart: f64 = first
        .mean
        .iter()
        .zip(&second.mean)
        .map(|(a, b)| (a - b).powi(2))
        .sum();
    let (one, other) = (first.covariance(), second.covariance());
    let trace = |matrix: &[f64]| (0..width).map(|i| matrix[i * width + i]).sum::<f64>();
    let root = root(&one, width).ok_or(FrechetError::NotFinite)?;
    let between = product(&product(&root, &other, width), &root, width);
    let between = symmetric(&between, width);
    let between = eigenvalues(&between, width).ok_or(FrechetError::NotFinite)?;
    let overlap: f64 = between.iter().map(|value| value.max(0.0).sqrt()).sum();
    Ok((apart + trace(&one) + trace(&other) - 2.0 * overlap).max(0.0))
}

/// The symmetric root of a covariance.
fn root(matrix: &[f64], width: usize) -> Option<Vec<f64>> {
    let parts = eigen(matrix, width)?;
    let mut scaled = parts.vectors.clone();
    for (row, value) in scaled.chunks_mut(width.max(1)).zip(&parts.values) {
        let scale = value.max(0.0).sqrt();
        row.iter_mut().for_each(|cell| *cell *= scale);
    }
    // Vectors are rows: their transpose times the scaled rows.
    let mut root = vec![0.0; width * width];
    for (vector, scaled) in parts
        .vectors
        .chunks(width.max(1))
        .zip(scaled.chunks(width.max(1)))
    {
        for (row, own) in root.chunks_mut(width.max(1)).zip(vector) {
            for (cell, value) in row.iter_mut().zip(scaled) {
                *cell += own * value;
            }
        }
    }
    Some(root)
}

fn product(first: &[f64], second: &[f64], width: usize) -> Vec<f64> {
    use rayon::prelude::*;

    let mut result = vec![0.0; width * width];
    result
        .par_chunks_mut(width.max(1))
        .zip(first.par_chunks(width.max(1)))
        .for_each(|(row, own)| {
            for (weight, other) in own.iter().zip(second.chunks(width)) {
                for (cell, value) in row.iter_mut().zip(other) {
                    *cell += weight * value;
                }
            }
        });
    result
}

/// The mean of a matrix and its transpose: what rounding made uneven.
fn symmetric(matrix: &[f64], width: usize) -> Vec<f64> {
    (0..width * width)
        .map(|place| {
            let (row, column) = (place / width, place % width);
            0.5 * (matrix[place] + matrix[column * width + row])
        })
        .collect()
}
