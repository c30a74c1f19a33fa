//! Fréchet distance of two sets of pictures (Heusel et al., 2017): how far apart two clouds of features are, each taken
//! as a normal distribution. With Inception's features it is called FID, with CLIP's CLIP-FID; the two must not be
//! compared.

use rayon::prelude::*;

use super::symmetric::{eigenvalues, factor};

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
/// The root's trace is the sum of the roots of the eigenvalues of `F Σ₂ Fᵀ` where `Fᵀ F = Σ₁`: a symmetric matrix no larger
/// than the number of pictures in the smaller set, so covariances without full rank need no correction, and cost less.
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
    let (fewer, more) = match first.count <= second.count {
        true => (first.covariance(), second.covariance()),
        false => (second.covariance(), first.covariance()),
    };
    let trace = |matrix: &[f64]| (0..width).map(|i| matrix[i * width + i]).sum::<f64>();
    let factor = factor(&fewer, width).ok_or(FrechetError::NotFinite)?;
    let between = within(&factor, &more, width);
    let size = factor.len() / width.max(1);
    let between = eigenvalues(&between, size).ok_or(FrechetError::NotFinite)?;
    let overlap: f64 = between.iter().map(|value| value.max(0.0).sqrt()).sum();
    Ok((apart + trace(&fewer) + trace(&more) - 2.0 * overlap).max(0.0))
}

/// `F Σ Fᵀ`, for rows `F` of `width` values and a symmetric `Σ`.
fn within(rows: &[f64], matrix: &[f64], width: usize) -> Vec<f64> {
    let width = width.max(1);
    let size = rows.len() / width;
    let mut images = vec![0.0; rows.len()];
    images
        .par_chunks_mut(width)
        .zip(rows.par_chunks(width))
        .for_each(|(image, row)| {
            for (weight, other) in row.iter().zip(matrix.chunks(width)) {
                for (cell, value) in image.iter_mut().zip(other) {
                    *cell += weight * value;
                }
            }
        });
    let mut result = vec![0.0; size * size];
    result
        .par_chunks_mut(size.max(1))
        .zip(images.par_chunks(width))
        .for_each(|(products, image)| {
            for (product, row) in products.iter_mut().zip(rows.chunks(width)) {
                *product = image.iter().zip(row).map(|(a, b)| a * b).sum();
            }
        });
    // What rounding made uneven.
    (0..size * size)
        .map(|place| {
            let (row, column) = (place / size, place % size);
            0.5 * (result[place] + result[column * size + row])
        })
        .collect()
}
