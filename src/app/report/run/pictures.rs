//! The validation users' pictures at successive steps.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use image::imageops::{FilterType, resize};

use super::super::{Picture, PictureRow};
use crate::app::pictures::png;
use crate::data::image::{ImageLimits, decode};

/// Steps shown of each user: the first, the last, and those evenly between.
const MAX_STEPS: usize = 12;
/// Pixels of the longer side on the page.
const SIDE: u32 = 128;

/// A row for each user who has a picture in some `step-N` of `folder`: reference and keyword image first.
pub fn rows(folder: &Path) -> Vec<PictureRow> {
    let steps = evenly(steps(folder), MAX_STEPS);
    let mut columns = vec![
        ("reference".to_string(), folder.join("reference")),
        ("keywords".to_string(), folder.join("keyword")),
    ];
    let users: BTreeSet<String> = steps.iter().flat_map(|(_, path)| users(path)).collect();
    columns.extend(
        steps
            .into_iter()
            .map(|(step, path)| (format!("step {step}"), path)),
    );
    let row = |user: String| PictureRow {
        pictures: columns
            .iter()
            .filter_map(|(caption, folder)| {
                let file = folder.join(format!("{user}.png"));
                let text = format!("{user}, {caption}");
                Some((caption.clone(), picture(&file, text)?))
            })
            .collect(),
        user,
    };
    let rows = users.into_iter().map(row);
    rows.filter(|row| !row.pictures.is_empty()).collect()
}

/// The folders `step-000120`, by number.
fn steps(folder: &Path) -> Vec<(usize, PathBuf)> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut steps: Vec<(usize, PathBuf)> = entries
        .filter_map(|entry| {
            let name = entry.file_name();
            let number = name.to_str()?.strip_prefix("step-")?.parse().ok()?;
            Some((number, entry.path()))
        })
        .collect();
    steps.sort();
    steps
}

/// Names of the PNG files in `folder`, without the ending.
fn users(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let name = entry.file_name().to_str()?.to_string();
            Some(name.strip_suffix(".png")?.to_string())
        })
        .collect()
}

/// At most `count` of `all`, first and last among them.
fn evenly<T>(all: Vec<T>, count: usize) -> Vec<T> {
    let last = all.len().saturating_sub(1);
    if all.len() <= count {
        return all;
    }
    let chosen: BTreeSet<usize> = (0..count).map(|place| place * last / (count - 1)).collect();
    let places = all.into_iter().enumerate();
    let kept = places.filter(|(place, _)| chosen.contains(place));
    kept.map(|(_, item)| item).collect()
}

/// The picture for the page, no larger than needed; none where it cannot be read.
fn picture(file: &Path, text: String) -> Option<Picture> {
    let picture = decode(file, &ImageLimits::default()).ok()?;
    let (width, height) = picture.dimensions();
    let longest = width.max(height).max(1);
    let png = match longest > SIDE {
        false => png(&picture).ok()?,
        true => {
            let scaled = |length: u32| (length * SIDE / longest).max(1);
            let filter = FilterType::CatmullRom;
            png(&resize(&picture, scaled(width), scaled(height), filter)).ok()?
        }
    };
    Some(Picture { text, png })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_of_many_keep_both_ends() {
        let chosen = evenly((0..100).collect(), 5);
        assert_eq!(chosen, [0, 24, 49, 74, 99]);
        assert_eq!(evenly(vec![1, 2], 5), [1, 2]);
    }
}
