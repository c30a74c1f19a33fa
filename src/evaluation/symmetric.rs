//! Symmetric matrices in f64, row after row: eigenvalues by reflections to three diagonals and shifted QR sweeps (Golub and
//! Van Loan, *Matrix Computations*, chapter 8), and factors of those that have no negative eigenvalue (Cholesky with
//! pivoting, chapter 4).

use rayon::prelude::*;

/// Sweeps that one eigenvalue may take; three are usual.
const MOST_SWEEPS: usize = 64;
/// Rows from which on threads pay.
const ROWS_PER_THREAD: usize = 64;

/// The eigenvalues of the symmetric `matrix`, `size` × `size`, in no order; nothing where a value is not finite.
///
/// # Panics
/// When the matrix has another size.
pub fn eigenvalues(matrix: &[f64], size: usize) -> Option<Vec<f64>> {
    assert_eq!(matrix.len(), size * size, "values of a square matrix");
    if matrix.iter().any(|value| !value.is_finite()) {
        return None;
    }
    let mut reduced = matrix.to_vec();
    for column in 0..size.saturating_sub(2) {
        reflect(&mut reduced, size, column);
    }
    let mut values: Vec<f64> = (0..size).map(|i| reduced[i * size + i]).collect();
    let mut beside: Vec<f64> = (1..size).map(|i| reduced[i * size + i - 1]).collect();
    diagonalise(&mut values, &mut beside)?;
    Some(values)
}

/// Rows whose products with themselves add up to `matrix`, `Σ rowᵀ row`: as many as it has rank, each of `size` values;
/// nothing where a value is not finite. What it has of negative eigenvalues is taken for rounding.
///
/// # Panics
/// When the matrix has another size.
pub fn factor(matrix: &[f64], size: usize) -> Option<Vec<f64>> {
    assert_eq!(matrix.len(), size * size, "values of a square matrix");
    if matrix.iter().any(|value| !value.is_finite()) {
        return None;
    }
    let mut left: Vec<f64> = (0..size).map(|i| matrix[i * size + i]).collect();
    let largest = |left: &[f64]| (0..size).max_by(|&a, &b| left[a].total_cmp(&left[b]));
    let smallest = size as f64 * f64::EPSILON * largest(&left).map_or(0.0, |place| left[place]);
    let mut rows: Vec<f64> = Vec::new();
    while rows.len() < size * size {
        let Some(pivot) = largest(&left).filter(|&place| left[place] > smallest) else {
            break;
        };
        let mut row = matrix[pivot * size..(pivot + 1) * size].to_vec();
        row.par_chunks_mut(ROWS_PER_THREAD)
            .enumerate()
            .for_each(|(chunk, cells)| {
                let first = chunk * ROWS_PER_THREAD;
                for before in rows.chunks(size) {
                    let weight = before[pivot];
                    for (cell, value) in cells.iter_mut().zip(&before[first..]) {
                        *cell -= weight * value;
                    }
                }
            });
        let scale = left[pivot].sqrt().recip();
        for (cell, left) in row.iter_mut().zip(&mut left) {
            *cell *= scale;
            *left -= *cell * *cell;
        }
        left[pivot] = 0.0;
        rows.extend(row);
    }
    Some(rows)
}

/// Clears `column` beneath its subdiagonal by a reflection of both sides.
fn reflect(matrix: &mut [f64], size: usize, column: usize) {
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
}

/// Drives the side diagonal to zero; nothing when it does not go.
fn diagonalise(values: &mut [f64], beside: &mut [f64]) -> Option<()> {
    let mut last = values.len().saturating_sub(1);
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
        sweep(values, beside, first, last);
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
fn sweep(values: &mut [f64], beside: &mut [f64], first: usize, last: usize) {
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
    }
}

fn dot(first: &[f64], second: &[f64]) -> f64 {
    first.iter().zip(second).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Size, rank, spread: well and badly conditioned, of low rank, of none.
    const CASES: [(usize, usize, f64); 5] = [
        (1, 1, 1.0),
        (2, 2, 1.0),
        (7, 7, 1e6),
        (90, 5, 1.0),
        (12, 0, 1.0),
    ];

    /// `rank` products of waves with themselves, longer and longer ones.
    fn matrix(size: usize, rank: usize, spread: f64) -> Vec<f64> {
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
        matrix
    }

    #[test]
    fn a_matrix_is_rebuilt_from_its_factor() {
        for (size, rank, spread) in CASES {
            let mut matrix = matrix(size, rank, spread);
            if size == 7 {
                (0..size).for_each(|i| matrix[i * size + i] += 1.0 + i as f64);
            }
            let rows = factor(&matrix, size).unwrap();
            let found = rows.len() / size;
            // Waves of one frequency span two dimensions, whatever their phases.
            assert_eq!(found, if size == 7 { 7 } else { rank.min(2) }, "rank");
            let largest = matrix
                .iter()
                .fold(1f64, |most, value| most.max(value.abs()));
            for row in 0..size {
                for column in 0..size {
                    let products = rows.chunks(size).map(|factor| factor[row] * factor[column]);
                    let error = products.sum::<f64>() - matrix[row * size + column];
                    assert!(
                        error.abs() < 1e-11 * largest,
                        "{size}: {row} {column}: {error}"
                    );
                }
            }
        }
        assert_eq!(factor(&[], 0).unwrap(), Vec::<f64>::new());
        assert_eq!(factor(&[f64::NAN], 1), None);
    }

    #[test]
    fn eigenvalues_are_roots_and_add_up() {
        for (size, rank, spread) in CASES {
            let mut matrix = matrix(size, rank, spread);
            (0..size).for_each(|i| matrix[i * size + i] += i as f64);
            let values = eigenvalues(&matrix, size).unwrap();
            // Of a matrix and of its square the traces are sums of eigenvalues and of their squares.
            let trace = (0..size).map(|i| matrix[i * size + i]).sum::<f64>();
            let squares = matrix.iter().map(|value| value * value).sum::<f64>();
            let sum = |power| values.iter().map(|value| value.powi(power)).sum::<f64>();
            assert!((sum(1) - trace).abs() < 1e-11 * trace.max(1.0), "{size}");
            assert!(
                (sum(2) - squares).abs() < 1e-11 * squares.max(1.0),
                "{size}"
            );
            // Each makes the matrix singular: less it, one eigenvalue is nothing.
            let largest = values
                .iter()
                .fold(1f64, |most, value| most.max(value.abs()));
            for value in values {
                let mut less = matrix.clone();
                (0..size).for_each(|i| less[i * size + i] -= value);
                let near = eigenvalues(&less, size).unwrap();
                let near = near
                    .iter()
                    .fold(f64::MAX, |least, value| least.min(value.abs()));
                assert!(near < 1e-10 * largest, "{size}: {value}");
            }
        }
        let mut known = eigenvalues(&[2.0, 1.0, 0.0, 1.0, 2.0, 0.0, 0.0, 0.0, 5.0], 3).unwrap();
        known.sort_by(f64::total_cmp);
        for (found, want) in known.iter().zip([1.0, 3.0, 5.0]) {
            assert!((found - want).abs() < 1e-12, "{found} {want}");
        }
        assert_eq!(eigenvalues(&[2.0, 0.0, 0.0, 2.0], 2).unwrap(), [2.0, 2.0]);
        assert_eq!(eigenvalues(&[], 0).unwrap(), Vec::<f64>::new());
        assert_eq!(eigenvalues(&[f64::NAN], 1), None);
    }
}
