//! Looks at a whole data folder, pictures included, and lists everything that is wrong with it.

use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::Serialize;

use super::finding::{Finding, Problem, Severity};
use super::folder::{self, DataError, DataFolder, ITEMS_FILE};
use super::image::{self, ImageError, ImageLimits};
use super::item::Item;

/// Everything found in a folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CheckReport {
    pub root: PathBuf,
    /// Usable rows of each table.
    pub num_items: usize,
    pub num_interactions: usize,
    pub num_histories: usize,
    pub num_errors: usize,
    pub num_warnings: usize,
    /// By file, in the order of its rows.
    pub findings: Vec<Finding>,
}

impl CheckReport {
    /// Whether the folder can be used as it is.
    pub fn is_usable(&self) -> bool {
        self.num_errors == 0
    }
}

impl std::fmt::Display for CheckReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for finding in &self.findings {
            let word = match finding.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
            };
            writeln!(f, "{word}: {finding}")?;
        }
        write!(
            f,
            "{}: items {}, interactions {}, histories {}; errors {}, warnings {}",
            self.root.display(),
            self.num_items,
            self.num_interactions,
            self.num_histories,
            self.num_errors,
            self.num_warnings
        )
    }
}

/// Reads every table and decodes every picture of `root`.
///
/// # Errors
/// Only when there is no such folder; everything else is a finding.
pub fn check(root: impl AsRef<Path>, limits: &ImageLimits) -> Result<CheckReport, DataError> {
    let root = root.as_ref();
    let (folder, mut findings) = folder::read(root)?;
    findings.extend(check_images(&folder, limits));
    findings.sort_by_key(|finding| (file_order(&finding.file), finding.row));
    let num_errors = findings
        .iter()
        .filter(|finding| finding.severity == Severity::Error)
        .count();
    Ok(CheckReport {
        root: root.to_path_buf(),
        num_items: folder.catalogue.len(),
        num_interactions: folder.interactions.len(),
        num_histories: folder.histories.len(),
        num_errors,
        num_warnings: findings.len() - num_errors,
        findings,
    })
}

fn file_order(file: &str) -> usize {
    [
        ITEMS_FILE,
        folder::INTERACTIONS_FILE,
        folder::HISTORIES_FILE,
    ]
    .iter()
    .position(|known| *known == file)
    .unwrap_or(usize::MAX)
}

fn check_images(folder: &DataFolder, limits: &ImageLimits) -> Vec<Finding> {
    let root = folder.root.canonicalize().unwrap_or(folder.root.clone());
    folder
        .catalogue
        .items()
        .par_iter()
        .zip(&folder.item_rows)
        .filter_map(|(item, &row)| {
            let problem = check_image(item, &folder.root, &root, limits)?;
            Some(problem.at(ITEMS_FILE, row, Some("image")))
        })
        .collect()
}

fn check_image(
    item: &Item,
    root: &Path,
    real_root: &Path,
    limits: &ImageLimits,
) -> Option<Problem> {
    let path = item
        .image
        .strip_prefix(root)
        .unwrap_or(&item.image)
        .display()
        .to_string();
    // A link inside the folder may lead out of it.
    if let Ok(real) = item.image.canonicalize()
        && !real.starts_with(real_root)
    {
        let reason = format!("a link to {}", real.display());
        return Some(Problem::OutsidePath { path, reason });
    }
    let error = image::decode(&item.image, limits).err()?;
    let reason = error.reason();
    Some(match error {
        ImageError::Missing { .. } => Problem::MissingImage { path },
        ImageError::TooLarge { .. } | ImageError::FileTooLarge { .. } => {
            Problem::OversizedImage { path, reason }
        }
        _ => Problem::BrokenImage { path, reason },
    })
}
