//! Eigenvalues and eigenvectors of a symmetric matrix, in f64: reflections to three diagonals, then shifted QR sweeps
//! (Golub and Van Loan, *Matrix Computations*, chapter 8).

use rayon::prelude::*;

/// Sweeps that one eigenvalue may take; three are usual.
const MOST_SWEEPS: usize = 64;
/// Rows from which on threads pay.
const ROWS_PER_THREAD: usize = 64;

/// `matrix = Σ values[i] · vectors[i] vectors[i]ᵀ`.
#[derive(Debug, Clone, PartialEq)]
pub struct Eigen {
    /// In no order.
    pub values: Vec<f64>,
    /// Row after row, at length one.
    pub vectors: Vec<f64>,
}

/// Decomposes the symmetric `matrix`, `size` × `size` row after row; nothing where a value is not finite.
///
/// # Panics
/// When the matrix has another size.
pub fn eigen(matrix: &[f64], size: usize) -> Option<Eigen> {
    decompose(matrix, size, identity(size))
}

/// The eigenvalues alone, in no order: a fraction of the work.
///
/// # Panics
/// When the matrix has another size.
pub fn eigenvalues(matrix: &[f64], size: usize) -> Option<Vec<f64>> {
    decompose(matrix, size, Vec::new()).map(|parts| parts.values)
}

/// Rotates the rows of `vectors` along; without rows nothing is rotated.
fn decompose(matrix: &[f64], size: usize, mut vectors: Vec<f64>) -> Option<Eigen> {
    assert_eq!(matrix.len(), size * size, "values of a square matrix");
    if matrix.iter().any(|value| !value.is_finite()) {
        return None;
    }
    let mut reduced = matrix.to_vec();
    for column in 0..size.saturating_sub(2) {
        reflect(&mut reduced, &mut vectors, size, column);
    }
    let mut values: Vec<f64> = (0..size).map(|i| reduced[i * size + i]).collect();
    let mut beside: Vec<f64> = (1..size).map(|i| reduced[i * size + i - 1]).collect();
    diagonalise(&mut values, &mut beside, &mut vectors, size)?;
    Some(Eigen { values, vectors })
}

fn identity(size: usize) -> Vec<f64> {
    let mut matrix = vec![0.0; size * size];
    (0..size).for_each(|i| matrix[i * size + i] = 1.0);
    matrix
}

/// Clears `column` beneath its subdiagonal by a reflection of both sides; the rows of `vectors` take part.
fn reflect(matrix: &mut [f64], vectors: &mut [f64], size: usize, column: usize) {
    let first = column + 1;
    let mut normal: Vec<f64> = (first..size).map(|i| matrix[i * size + column]).collect();
    let length = normal.iter().map(|value| value * value).sum::<f64>().sqrt();
    let below = normal[1..].iter().all(|value| *value == 0.0);
    if below {
        return;
    }
    normal[0] += length.copysign(normal[0]);
    let square: f64 = normal.iter().map(|value| value * value).sum();
    let scale = 2.0 / square;

    // Both sides of the part beneath and right of the corner: A − n wᵀ − w nᵀ.
    let mut image: Vec<f64> = matrix[first * size..]
        .par_chunks(size)
        .with_min_len(ROWS_PER_THREAD)
        .map(|row| scale * dot(&row[first..], &normal))
        .collect();
    let half = 0.5 * scale * dot(&image, &normal);
    for (value, normal) in image.iter_mut().zip(&normal) {
        *value -= half * normal;
    }
    matrix[first * size..]
        .par_chunks_mut(size)
        .with_min_len(ROWS_PER_THREAD)
        .enumerate()
        .for_each(|(place, row)| {
            let (own_normal, own_image) = (normal[place], image[place]);
            for ((cell, normal), image) in row[first..].iter_mut().zip(&normal).zip(&image) {
                *cell -= own_normal * image + own_image * normal;
            }
        });
    let edge = -length.copysign(matrix[first * size + column]);
    for place in first..size {
        let value = if place == first { edge } else { 0.0 };
        matrix[place * size + column] = value;
        matrix[column * size + place] = value;
    }

    // The rows of `vectors` from `first` on are reflected with it.
    if vectors.is_empty() {
        return;
    }
    let mut shadow = vec![0.0; size];
    for (row, normal) in vectors[first * size..].chunks(size).zip(&normal) {
        for (sum, value) in shadow.iter_mut().zip(row) {
            *sum += scale * normal * value;
        }
    }
    vectors[first * size..]
        .par_chunks_mut(size)
        .with_min_len(ROWS_PER_THREAD)
        .zip(&normal)
        .for_each(|(row, normal)| {
            for (value, shadow) in row.iter_mut().zip(&shadow) {
                *value -= normal * shadow;
            }
        });
}

/// Drives the side diagonal to zero; nothing when it does not go.
fn diagonalise(
    values: &mut [f64],
    beside: &mut [f64],
    vectors: &mut [f64],
    size: usize,
) -> Option<()> {
    let mut last = size.saturating_sub(1);
    let mut sweeps = 0;
    while last > 0 {
        let small = |i: usize, beside: &[f64], values: &[f64]| {
            beside[i].abs() <= f64::EPSILON * (values[i].abs() + values[i + 1].abs())
        };
        if small(last - 1, beside, values) {
            beside[last - 1] = 0.0;
            last -= 1;
            sweeps = 0;
            continue;
        }
        let first = (0..last - 1)
            .rev()
            .find(|&i| small(i, beside, values))
            .map_or(0, |i| i + 1);
        sweep(values, beside, vectors, size, first, last);
        sweeps += 1;
        if sweeps > MOST_SWEEPS {
            // What is left is rounding of a matrix whose own values span too far.
            let scale = values
                .iter()
                .fold(0f64, |most, value| most.max(value.abs()));
            if beside[last - 1].abs() > 1e-12 * scale {
                return None;
            }
            beside[last - 1] = 0.0;
        }
    }
    Some(())
}

/// One QR sweep over the unreduced block `first..=last`, shifted by the eigenvalue of its corner nearest to its end.
fn sweep(
    values: &mut [f64],
    beside: &mut [f64],
    vectors: &mut [f64],
    size: usize,
    first: usize,
    last: usize,
) {
    let half = 0.5 * (values[last - 1] - values[last]);
    let corner = beside[last - 1];
    let shift = values[last] - corner * corner / (half + half.hypot(corner).copysign(half));
    let mut kept = values[first] - shift;
    let mut bulge = beside[first];
    for place in first..last {
        let length = kept.hypot(bulge);
        let (cosine, sine) = if length == 0.0 {
            (1.0, 0.0)
        } else {
            (kept / length, -bulge / length)
        };
        if place > first {
            beside[place - 1] = length;
        }
        let (upper, lower, side) = (values[place], values[place + 1], beside[place]);
        values[place] = cosine * cosine * upper - 2.0 * cosine * sine * side + sine * sine * lower;
        values[place + 1] =
            sine * sine * upper + 2.0 * cosine * sine * side + cosine * cosine * lower;
        beside[place] = cosine * sine * (upper - lower) + (cosine * cosine - sine * sine) * side;
        if place + 1 < last {
            kept = beside[place];
            bulge = -sine * beside[place + 1];
            beside[place + 1] *= cosine;
        }
        if vectors.is_empty() {
            continue;
        }
        let (head, tail) = vectors.split_at_mut((place + 1) * size);
        let (one, other) = (&mut head[place * size..], &mut tail[..size]);
        for (a, b) in one.iter_mut().zip(other) {
            (*a, *b) = (cosine * *a - sine * *b, sine * *a + cosine * *b);
        }
    }
}

fn dot(first: &[f64], second: &[f64]) -> f64 {
    first.iter().zip(second).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rebuilt(eigen: &Eigen, size: usize) -> Vec<f64> {
        let mut matrix = vec![0.0; size * size];
        for (value, vector) in eigen.values.iter().zip(eigen.vectors.chunks(size)) {
            for row in 0..size {
                for column in 0..size {
                    matrix[row * size + column] += value * vector[row] * vector[column];
                }
            }
        }
        matrix
    }

    #[test]
    fn a_matrix_is_rebuilt_from_its_parts() {
        // Well and badly conditioned, of low rank, with equal eigenvalues, diagonal, tiny and empty.
        for (size, rank, spread) in [
            (1, 1, 1.0),
            (2, 2, 1.0),
            (7, 7, 1e6),
            (90, 5, 1.0),
            (12, 0, 1.0),
        ] {
            let mut matrix = vec![0.0; size * size];
            for part in 0..rank {
                let scale = f64::powf(spread, part as f64 / rank as f64);
                let vector: Vec<f64> = (0..size)
                    .map(|i| ((i * 7 + part * 13 + 1) as f64).sin())
                    .collect();
                for row in 0..size {
                    for column in 0..size {
                        matrix[row * size + column] += scale * vector[row] * vector[column];
                    }
                }
            }
            let found = eigen(&matrix, size).unwrap();
            let mut sorted = found.values.clone();
            sorted.sort_by(f64::total_cmp);
            let mut alone = eigenvalues(&matrix, size).unwrap();
            alone.sort_by(f64::total_cmp);
            assert_eq!(alone, sorted);
            let largest = matrix
                .iter()
                .fold(1f64, |most, value| most.max(value.abs()));
            for (a, b) in rebuilt(&found, size).iter().zip(&matrix) {
                assert!((a - b).abs() < 1e-11 * largest, "{size}: {a} {b}");
            }
            for (i, a) in found.vectors.chunks(size).enumerate() {
                for (j, b) in found.vectors.chunks(size).enumerate() {
                    let expected = f64::from(u8::from(i == j));
                    assert!((dot(a, b) - expected).abs() < 1e-11, "{size}: {i} {j}");
                }
            }
        }
        let same = eigen(&[2.0, 0.0, 0.0, 2.0], 2).unwrap();
        assert_eq!(same.values, [2.0, 2.0]);
        assert_eq!(eigen(&[], 0).unwrap().values, Vec::<f64>::new());
        assert_eq!(eigen(&[f64::NAN], 1), None);
    }
}
