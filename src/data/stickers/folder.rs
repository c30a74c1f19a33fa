//! A sticker folder, read back: a data folder and what is known of each picture.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use image::RgbImage;
use rayon::prelude::*;

use super::{Sticker, Style};
use crate::data::finding::{Finding, Problem};
use crate::data::folder::{DataError, DataFolder, first_error};
use crate::data::history::{History, Split};
use crate::data::image::{ImageError, ImageLimits, decode};
use crate::data::table::read_rows;

pub const STICKERS_FILE: &str = "stickers.csv";

/// The sticker set: `stickers[i]` is item `i` of the folder's catalogue.
#[derive(Debug, Clone)]
pub struct Stickers {
    pub folder: DataFolder,
    pub stickers: Vec<Sticker>,
    by_pair: HashMap<(String, Style), usize>,
}

impl Stickers {
    /// Reads a data folder that has a `stickers.csv` beside the usual files.
    ///
    /// # Errors
    /// The first fault of any file with its row, a row for an unknown item, or an item without a row.
    pub fn open(root: impl AsRef<Path>) -> Result<Self, DataError> {
        let folder = DataFolder::open(root)?;
        let mut findings = Vec::new();
        let stickers = read_stickers(&folder, &mut findings);
        if let Some(error) = first_error(&folder.root, findings) {
            return Err(error);
        }
        let by_pair = stickers
            .iter()
            .map(|sticker| ((sticker.glyph.clone(), sticker.style), sticker.item))
            .collect();
        Ok(Self {
            folder,
            stickers,
            by_pair,
        })
    }

    pub fn len(&self) -> usize {
        self.stickers.len()
    }

    pub fn is_empty(&self) -> bool {
        self.stickers.is_empty()
    }

    /// The stickers that may be trained on.
    pub fn training(&self) -> impl Iterator<Item = &Sticker> {
        self.stickers.iter().filter(|sticker| !sticker.held_out)
    }

    /// The stickers nobody may train on.
    pub fn held_out(&self) -> impl Iterator<Item = &Sticker> {
        self.stickers.iter().filter(|sticker| sticker.held_out)
    }

    /// The item of a glyph in a style, if it exists.
    pub fn find(&self, glyph: &str, style: Style) -> Option<usize> {
        self.by_pair.get(&(glyph.to_string(), style)).copied()
    }

    /// All labels, each once, sorted.
    pub fn labels(&self) -> Vec<&str> {
        let labels: BTreeSet<&str> = self.stickers.iter().map(|s| s.label.as_str()).collect();
        labels.into_iter().collect()
    }

    /// All groups, each once, sorted.
    pub fn groups(&self) -> Vec<&str> {
        let groups: BTreeSet<&str> = self.stickers.iter().map(|s| s.group.as_str()).collect();
        groups.into_iter().collect()
    }

    /// All glyphs in the order of the file.
    pub fn glyphs(&self) -> Vec<&str> {
        let mut seen = BTreeSet::new();
        self.stickers
            .iter()
            .map(|sticker| sticker.glyph.as_str())
            .filter(|glyph| seen.insert(*glyph))
            .collect()
    }

    /// The users of one split.
    pub fn users(&self, split: Split) -> impl Iterator<Item = &History> {
        self.folder
            .histories
            .iter()
            .filter(move |history| history.split == Some(split))
    }

    /// Every picture, in the catalogue's order.
    ///
    /// # Errors
    /// The first picture that cannot be used, with its path.
    pub fn load_images(&self, limits: &ImageLimits) -> Result<Vec<RgbImage>, ImageError> {
        self.folder
            .catalogue
            .items()
            .par_iter()
            .map(|item| decode(&item.image, limits))
            .collect()
    }
}

fn read_stickers(folder: &DataFolder, findings: &mut Vec<Finding>) -> Vec<Sticker> {
    let mut rows: BTreeMap<usize, (usize, Sticker)> = BTreeMap::new();
    read_rows(
        &folder.root,
        STICKERS_FILE,
        [
            "item_id", "glyph", "label", "tags", "group", "style", "held_out",
        ],
        findings,
        |row, [id, glyph, label, tags, group, style, held_out], findings| {
            let mut report = |problem: Problem, column| {
                findings.push(problem.at(STICKERS_FILE, row, Some(column)));
            };
            let Some(item) = folder.catalogue.position(id) else {
                return report(Problem::UnknownItem { id: id.to_string() }, "item_id");
            };
            if let Some((first_row, _)) = rows.get(&item) {
                let (id, first_row) = (id.to_string(), *first_row);
                return report(Problem::DuplicateId { id, first_row }, "item_id");
            }
            for (field, column) in [(glyph, "glyph"), (label, "label"), (group, "group")] {
                if field.is_empty() {
                    return report(Problem::EmptyField, column);
                }
            }
            let bad = |found: &str, expected: String| Problem::BadValue {
                found: found.to_string(),
                expected,
            };
            let Some(style) = Style::from_name(style) else {
                let known = Style::ALL.map(Style::name).join(", ");
                return report(bad(style, format!("one of {known}")), "style");
            };
            let Ok(held_out) = held_out.parse() else {
                return report(bad(held_out, "true or false".to_string()), "held_out");
            };
            let sticker = Sticker {
                item,
                glyph: glyph.to_string(),
                label: label.to_string(),
                tags: tags
                    .split(';')
                    .filter(|tag| !tag.is_empty())
                    .map(str::to_string)
                    .collect(),
                group: group.to_string(),
                style,
                held_out,
            };
            rows.insert(item, (row, sticker));
        },
    );
    if findings.is_empty() {
        for (position, item) in folder.catalogue.iter().enumerate() {
            if !rows.contains_key(&position) {
                let id = item.id.clone();
                findings.push(Problem::MissingRow { id }.of(STICKERS_FILE, None));
            }
        }
    }
    rows.into_values().map(|(_, sticker)| sticker).collect()
}
