//! `ragar study`: experiments about the method rather than with it.

mod ablation;
mod assumptions;
mod augmentation;
mod gradient;
mod judge;
mod remembered;

pub use ablation::ablation;
pub use assumptions::assumptions;
pub use augmentation::augmentation;
pub use gradient::gradient;
pub use judge::judge;

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// Each user's mean over seeds.
fn by_column(rows: &[Vec<f64>]) -> Vec<f64> {
    let users = rows.first().map_or(0, Vec::len);
    (0..users)
        .map(|user| rows.iter().map(|row| row[user]).sum::<f64>() / rows.len() as f64)
        .collect()
}

fn less(a: &[Vec<f64>], b: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let rows = a.iter().zip(b);
    rows.map(|(a, b)| a.iter().zip(b).map(|(a, b)| a - b).collect())
        .collect()
}
