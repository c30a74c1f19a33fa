//! Builds a sticker folder: choose glyphs, draw them, hold pairs out, invent users, write.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::error::StickerError;
use super::held_out::{self, Pair};
use super::selection::{self, Glyph, Selection};
use super::sources::Sources;
use super::users::{self, UserOptions};
use super::{Sticker, StickerRow, image_path, item_text, notices, render};
use crate::data::history::{History, HistoryLine};
use crate::data::item::{Catalogue, Item};

/// What to build, and from what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StickerOptions {
    /// The folder that holds the unpacked npm packages.
    #[serde(skip_serializing)]
    pub packages: PathBuf,
    /// The folder to write; replaced if it is a sticker folder already.
    #[serde(skip_serializing)]
    pub output: PathBuf,
    pub selection: Selection,
    /// Only these groups; all if empty.
    pub groups: Vec<String>,
    /// At most this many glyphs of each group, the first of the list.
    pub max_per_group: Option<usize>,
    /// Share of all (glyph, style) pairs held out of every training.
    pub held_out: f64,
    pub users: UserOptions,
    pub seed: u64,
}

impl Default for StickerOptions {
    fn default() -> Self {
        Self {
            packages: PathBuf::from("node_modules"),
            output: PathBuf::from("assets/stickers"),
            selection: Selection::Shipped,
            groups: Vec::new(),
            max_per_group: None,
            held_out: 0.1,
            users: UserOptions::default(),
            seed: 20_250_501,
        }
    }
}

impl StickerOptions {
    /// # Errors
    /// The first field out of range.
    pub fn validate(&self) -> Result<(), StickerError> {
        let refuse = |field, found: String, expected: &str| {
            Err(StickerError::Option {
                field,
                found,
                expected: expected.to_string(),
            })
        };
        if !(0.0..=0.3).contains(&self.held_out) {
            return refuse("held_out", self.held_out.to_string(), "0 to 0.3");
        }
        if !(0.0..=1.0).contains(&self.users.noise_rate) {
            return refuse(
                "users.noise_rate",
                self.users.noise_rate.to_string(),
                "0 to 1",
            );
        }
        if self.users.history_length == 0 {
            return refuse("users.history_length", "0".into(), "at least 1");
        }
        if self.max_per_group == Some(0) {
            return refuse("max_per_group", "0".into(), "at least 1");
        }
        Ok(())
    }
}

/// What was built.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BuildReport {
    pub num_glyphs: usize,
    pub num_items: usize,
    pub num_held_out: usize,
    pub num_users: BTreeMap<String, usize>,
    /// Glyphs of each group.
    pub glyphs_per_group: BTreeMap<String, usize>,
    pub items_per_style: BTreeMap<String, usize>,
    pub held_out_per_style: BTreeMap<String, usize>,
    pub held_out_per_group: BTreeMap<String, usize>,
    pub image_bytes: u64,
    /// Package name to the version found.
    pub packages: BTreeMap<String, String>,
}

/// The first line of `manifest.json`; also how an older folder is recognised before it is replaced.
const FORMAT: &str = "ragar stickers 1";

#[derive(Debug, Serialize)]
struct Manifest<'a> {
    format: &'static str,
    options: &'a StickerOptions,
    #[serde(flatten)]
    report: &'a BuildReport,
}

/// Builds the folder `options.output`. The same options and packages give the same bytes.
///
/// # Errors
/// A missing package (with the command that brings it), an icon that cannot be drawn, too few stickers for the users
/// asked for, or a file that cannot be written. The output folder is replaced at the end only.
pub fn build(options: &StickerOptions) -> Result<BuildReport, StickerError> {
    options.validate()?;
    refuse_foreign_folder(&options.output)?;
    let sources = Sources::open(&options.packages)?;
    let glyphs = restrict(selection::select(&sources, options.selection)?, options)?;
    let stickers = stickers(&glyphs, options);
    let ids: Vec<String> = stickers.iter().map(item_id).collect();
    let users = users::invent(&stickers, &options.users, options.seed)?;

    let drawings = glyphs.iter().flat_map(|glyph| {
        glyph
            .drawings
            .iter()
            .map(move |(style, drawing)| (glyph, *style, drawing))
    });
    let images = drawings
        .collect::<Vec<_>>()
        .into_par_iter()
        .map(|(glyph, style, drawing)| {
            let picture = sources.draw(&glyph.label, style, drawing)?;
            render::encode_png(&picture).map_err(|error| StickerError::Drawing {
                path: options.packages.clone(),
                glyph: glyph.label.clone(),
                style: style.name(),
                reason: error.to_string(),
            })
        })
        .collect::<Result<Vec<_>, _>>()?;

    let report = report(&glyphs, &stickers, &users, &images, &sources);
    let manifest = Manifest {
        format: FORMAT,
        options,
        report: &report,
    };
    let staged = Staged::new(&options.output)?;
    for (id, bytes) in ids.iter().zip(&images) {
        staged.write(&image_path(id), bytes)?;
    }
    let catalogue = catalogue(&stickers, &ids);
    staged.write(Path::new("items.csv"), &items_csv(&catalogue)?)?;
    staged.write(Path::new("stickers.csv"), &stickers_csv(&stickers, &ids)?)?;
    staged.write(
        Path::new("interactions.csv"),
        &interactions_csv(&users, &ids)?,
    )?;
    staged.write(
        Path::new("histories.jsonl"),
        &histories_jsonl(&users, &catalogue)?,
    )?;
    staged.write(Path::new("manifest.json"), &pretty(&manifest)?)?;
    for (name, text) in notices::files(&sources.packages) {
        staged.write(Path::new(name), text.as_bytes())?;
    }
    staged.finish()?;
    Ok(report)
}

fn restrict(glyphs: Vec<Glyph>, options: &StickerOptions) -> Result<Vec<Glyph>, StickerError> {
    if let Some(unknown) = options
        .groups
        .iter()
        .find(|group| !glyphs.iter().any(|glyph| glyph.group == **group))
    {
        let mut known: Vec<&str> = glyphs.iter().map(|glyph| glyph.group.as_str()).collect();
        known.sort_unstable();
        known.dedup();
        return Err(StickerError::Option {
            field: "groups",
            found: unknown.clone(),
            expected: format!("some of {}", known.join(", ")),
        });
    }
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let limit = options.max_per_group.unwrap_or(usize::MAX);
    Ok(glyphs
        .into_iter()
        .filter(|glyph| options.groups.is_empty() || options.groups.contains(&glyph.group))
        .filter(|glyph| {
            let count = counts.entry(glyph.group.clone()).or_default();
            *count += 1;
            *count <= limit
        })
        .collect())
}

fn stickers(glyphs: &[Glyph], options: &StickerOptions) -> Vec<Sticker> {
    let pairs: Vec<Pair<'_>> = glyphs
        .iter()
        .flat_map(|glyph| {
            glyph.drawings.iter().map(|(style, _)| Pair {
                glyph: &glyph.hexcode,
                group: &glyph.group,
                style: *style,
            })
        })
        .collect();
    let held_out = held_out::choose(&pairs, options.held_out, options.seed);
    let by_hexcode: BTreeMap<&str, &Glyph> =
        glyphs.iter().map(|g| (g.hexcode.as_str(), g)).collect();
    pairs
        .iter()
        .zip(held_out)
        .enumerate()
        .map(|(item, (pair, held_out))| {
            let glyph = by_hexcode[pair.glyph];
            Sticker {
                item,
                glyph: glyph.hexcode.clone(),
                label: glyph.label.clone(),
                tags: glyph.tags.clone(),
                group: glyph.group.clone(),
                style: pair.style,
                held_out,
            }
        })
        .collect()
}

fn item_id(sticker: &Sticker) -> String {
    format!("{}-{}", sticker.style.name(), sticker.glyph)
}

fn catalogue(stickers: &[Sticker], ids: &[String]) -> Catalogue {
    let items = stickers
        .iter()
        .zip(ids)
        .map(|(sticker, id)| Item {
            id: id.clone(),
            image: image_path(id),
            text: item_text(&sticker.label, &sticker.group, &sticker.tags),
        })
        .collect();
    // Hexcodes are distinct, so ids are.
    Catalogue::new(items).unwrap_or_default()
}

fn report(
    glyphs: &[Glyph],
    stickers: &[Sticker],
    users: &[History],
    images: &[Vec<u8>],
    sources: &Sources,
) -> BuildReport {
    let count = |keys: &mut dyn Iterator<Item = String>| {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for key in keys {
            *counts.entry(key).or_default() += 1;
        }
        counts
    };
    let held_out = || stickers.iter().filter(|sticker| sticker.held_out);
    BuildReport {
        num_glyphs: glyphs.len(),
        num_items: stickers.len(),
        num_held_out: held_out().count(),
        num_users: count(
            &mut users
                .iter()
                .filter_map(|user| Some(user.split?.name().to_string())),
        ),
        glyphs_per_group: count(&mut glyphs.iter().map(|glyph| glyph.group.clone())),
        items_per_style: count(&mut stickers.iter().map(|s| s.style.to_string())),
        held_out_per_style: count(&mut held_out().map(|s| s.style.to_string())),
        held_out_per_group: count(&mut held_out().map(|s| s.group.clone())),
        image_bytes: images.iter().map(|bytes| bytes.len() as u64).sum(),
        packages: sources
            .packages
            .iter()
            .map(|package| (package.source.name.to_string(), package.version.clone()))
            .collect(),
    }
}

fn items_csv(catalogue: &Catalogue) -> Result<Vec<u8>, StickerError> {
    let rows = catalogue.iter().map(|item| {
        // Forward slashes on every system.
        let image = item
            .image
            .iter()
            .map(|part| part.to_string_lossy())
            .collect::<Vec<_>>()
            .join("/");
        [item.id.clone(), image, item.text.clone()]
    });
    csv_bytes("items.csv", Some(&["item_id", "image", "text"]), rows)
}

fn stickers_csv(stickers: &[Sticker], ids: &[String]) -> Result<Vec<u8>, StickerError> {
    let rows = stickers.iter().zip(ids).map(|(sticker, id)| StickerRow {
        item_id: id.clone(),
        glyph: sticker.glyph.clone(),
        label: sticker.label.clone(),
        tags: sticker.tags.join(";"),
        group: sticker.group.clone(),
        style: sticker.style,
        held_out: sticker.held_out,
    });
    csv_bytes("stickers.csv", None, rows)
}

/// When the first user met the first item; users follow a day apart, items an hour.
const FIRST_TIMESTAMP: i64 = 1_600_000_000;

fn interactions_csv(users: &[History], ids: &[String]) -> Result<Vec<u8>, StickerError> {
    let rows = users.iter().enumerate().flat_map(|(number, user)| {
        user.history.iter().enumerate().map(move |(hour, &item)| {
            let timestamp = FIRST_TIMESTAMP + number as i64 * 86_400 + hour as i64 * 3_600;
            (user.user.clone(), ids[item].clone(), timestamp)
        })
    });
    csv_bytes(
        "interactions.csv",
        Some(&["user_id", "item_id", "timestamp"]),
        rows,
    )
}

fn csv_bytes<R: Serialize>(
    name: &str,
    header: Option<&[&str]>,
    rows: impl Iterator<Item = R>,
) -> Result<Vec<u8>, StickerError> {
    let failed = |error: std::io::Error| StickerError::Io {
        path: PathBuf::from(name),
        source: error,
    };
    let mut writer = csv::WriterBuilder::new()
        .has_headers(header.is_none())
        .from_writer(Vec::new());
    if let Some(header) = header {
        writer
            .write_record(header)
            .map_err(|error| failed(error.into()))?;
    }
    for row in rows {
        writer
            .serialize(row)
            .map_err(|error| failed(error.into()))?;
    }
    writer
        .into_inner()
        .map_err(|error| failed(error.into_error()))
}

fn histories_jsonl(users: &[History], catalogue: &Catalogue) -> Result<Vec<u8>, StickerError> {
    let mut out = Vec::new();
    for user in users {
        let line = HistoryLine::from_history(user, catalogue);
        serde_json::to_writer(&mut out, &line).map_err(|source| StickerError::Json {
            path: PathBuf::from("histories.jsonl"),
            source,
        })?;
        out.push(b'\n');
    }
    Ok(out)
}

fn pretty<T: Serialize>(value: &T) -> Result<Vec<u8>, StickerError> {
    let mut bytes = serde_json::to_vec_pretty(value).map_err(|source| StickerError::Json {
        path: PathBuf::from("manifest.json"),
        source,
    })?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// A folder that exists and is not ours is never replaced.
fn refuse_foreign_folder(output: &Path) -> Result<(), StickerError> {
    let is_empty = match std::fs::read_dir(output) {
        Err(_) => return Ok(()),
        Ok(mut entries) => entries.next().is_none(),
    };
    let manifest = std::fs::read_to_string(output.join("manifest.json")).unwrap_or_default();
    if is_empty || manifest.contains(FORMAT) {
        return Ok(());
    }
    Err(StickerError::Option {
        field: "output",
        found: output.display().to_string(),
        expected: "a new or empty folder, or an earlier sticker folder".to_string(),
    })
}

/// A folder beside the output that takes its place once it is complete.
struct Staged {
    staging: tempfile::TempDir,
    output: PathBuf,
}

impl Staged {
    fn new(output: &Path) -> Result<Self, StickerError> {
        let parent = match output.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        std::fs::create_dir_all(parent).map_err(StickerError::io(parent))?;
        let staging = tempfile::Builder::new()
            .prefix(".stickers-")
            .tempdir_in(parent)
            .map_err(StickerError::io(parent))?;
        Ok(Self {
            staging,
            output: output.to_path_buf(),
        })
    }

    fn content(&self) -> PathBuf {
        self.staging.path().join("content")
    }

    fn write(&self, relative: &Path, bytes: &[u8]) -> Result<(), StickerError> {
        let path = self.content().join(relative);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(StickerError::io(folder))?;
        }
        let mut file = std::fs::File::create(&path).map_err(StickerError::io(&path))?;
        file.write_all(bytes).map_err(StickerError::io(&path))?;
        file.sync_all().map_err(StickerError::io(&path))
    }

    fn finish(self) -> Result<(), StickerError> {
        // Moved into the staging folder, which is removed when this ends.
        let old = self.staging.path().join("old");
        let replaces = self.output.exists();
        if replaces {
            std::fs::rename(&self.output, &old).map_err(StickerError::io(&self.output))?;
        }
        std::fs::rename(self.content(), &self.output).map_err(|source| {
            if replaces {
                // Best effort: the error below is what counts.
                let _ = std::fs::rename(&old, &self.output);
            }
            StickerError::Io {
                path: self.output.clone(),
                source,
            }
        })
    }
}
