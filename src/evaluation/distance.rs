//! Structural similarity of two images (Wang et al., 2004).

/// Radius of the gaussian window of 11 pixels.
const RADIUS: usize = 5;
const SIGMA: f64 = 1.5;

/// An image that cannot be compared.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DistanceError {
    /// Sizes differ, or do not match the number of values.
    #[error(
        "images of {first} and {second} values do not both have {channels} × {height} × {width} pixels"
    )]
    Size {
        /// Values of the first image.
        first: usize,
        /// Values of the second image.
        second: usize,
        /// Channels promised.
        channels: usize,
        /// Height promised.
        height: usize,
        /// Width promised.
        width: usize,
    },
    /// Smaller than the window.
    #[error(
        "an image of {height} × {width} pixels is smaller than the window of 11 × 11; resize it first"
    )]
    TooSmall {
        /// Height found.
        height: usize,
        /// Width found.
        width: usize,
    },
}

/// Mean structural similarity of two images given channel by channel (`shape` = channels, height, width),
/// whose values span `data_range`: 1 for equal images.
///
/// As scikit-image's `structural_similarity` with `gaussian_weights=True, sigma=1.5,
/// use_sample_covariance=False`: per channel, windows wholly inside the image, averaged.
///
/// # Errors
/// When the sizes differ or the images are smaller than the window.
pub fn structural_similarity(
    first: &[f32],
    second: &[f32],
    shape: [usize; 3],
    data_range: f64,
) -> Result<f64, DistanceError> {
    let [channels, height, width] = shape;
    let count = channels * height * width;
    if first.len() != count || second.len() != count || count == 0 {
        return Err(DistanceError::Size {
            first: first.len(),
            second: second.len(),
            channels,
            height,
            width,
        });
    }
    if height < 2 * RADIUS + 1 || width < 2 * RADIUS + 1 {
        return Err(DistanceError::TooSmall { height, width });
    }
    let window = gaussian();
    let plane = height * width;
    let means = (0..channels).map(|channel| {
        let range = channel * plane..(channel + 1) * plane;
        plane_similarity(
            &first[range.clone()],
            &second[range],
            width,
            &window,
            data_range,
        )
    });
    Ok(means.sum::<f64>() / channels as f64)
}

fn gaussian() -> Vec<f64> {
    let weights: Vec<f64> = (0..=2 * RADIUS)
        .map(|place| {
            let offset = place as f64 - RADIUS as f64;
            (-0.5 * (offset / SIGMA).powi(2)).exp()
        })
        .collect();
    let sum: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / sum).collect()
}

fn plane_similarity(
    first: &[f32],
    second: &[f32],
    width: usize,
    window: &[f64],
    data_range: f64,
) -> f64 {
    let blurred = |value: fn(f64, f64) -> f64| {
        let products: Vec<f64> = first
            .iter()
            .zip(second)
            .map(|(&a, &b)| value(f64::from(a), f64::from(b)))
            .collect();
        blur(&products, width, window)
    };
    let mean_a = blurred(|a, _| a);
    let mean_b = blurred(|_, b| b);
    let square_a = blurred(|a, _| a * a);
    let square_b = blurred(|_, b| b * b);
    let product = blurred(|a, b| a * b);
    let luminance_floor = (0.01 * data_range).powi(2);
    let contrast_floor = (0.03 * data_range).powi(2);
    let sum: f64 = (0..mean_a.len())
        .map(|place| {
            let (a, b) = (mean_a[place], mean_b[place]);
            let variances = square_a[place] - a * a + square_b[place] - b * b;
            let covariance = product[place] - a * b;
            (2.0 * a * b + luminance_floor) * (2.0 * covariance + contrast_floor)
                / ((a * a + b * b + luminance_floor) * (variances + contrast_floor))
        })
        .sum();
    sum / mean_a.len() as f64
}

/// Separable blur, at places whose window lies wholly inside.
fn blur(plane: &[f64], width: usize, window: &[f64]) -> Vec<f64> {
    let inner = width + 1 - window.len();
    let rows: Vec<f64> = plane
        .chunks(width)
        .flat_map(|row| {
            row.windows(window.len()).map(|part| {
                part.iter()
                    .zip(window)
                    .map(|(value, weight)| value * weight)
                    .sum()
            })
        })
        .collect();
    let height = plane.len() / width;
    let mut blurred = Vec::with_capacity(inner * (height + 1 - window.len()));
    for top in 0..height + 1 - window.len() {
        for column in 0..inner {
            let sum = window
                .iter()
                .enumerate()
                .map(|(row, weight)| weight * rows[(top + row) * inner + column])
                .sum();
            blurred.push(sum);
        }
    }
    blurred
}
