//! Writing a data folder: beside its place first, then into it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use image::{Rgb, RgbImage};
use serde::Serialize;
use serde_json::Value;

use super::error::LoadError;
use super::gathering::{Gathering, Picture};
use super::picture_names::{self, BLANK};
use super::selection::Selected;
use crate::data::folder::{HISTORIES_FILE, INTERACTIONS_FILE, ITEMS_FILE};
use crate::data::history::HistoryLine;

/// What the folder was made by; also how an earlier output is recognised before it is replaced.
pub const MANIFEST_FILE: &str = "manifest.json";
const FORMAT: &str = "ragar data 1";
/// Column of `items.csv` with the address of a picture that is still to be brought.
pub const URL_COLUMN: &str = "url";
/// Side of the blank picture, in pixels.
const BLANK_SIDE: u32 = 8;

/// A folder that exists and is not an earlier output of `loader` is never replaced, nor one that holds a source.
///
/// # Errors
/// [`LoadError::Foreign`] or [`LoadError::SourceInOutput`].
pub fn refuse_foreign(output: &Path, loader: &str, sources: &[&Path]) -> Result<(), LoadError> {
    if let Ok(real) = output.canonicalize() {
        for source in sources {
            let inside = source
                .canonicalize()
                .is_ok_and(|source| source.starts_with(&real));
            if inside {
                return Err(LoadError::SourceInOutput {
                    inner: source.to_path_buf(),
                    output: output.to_path_buf(),
                });
            }
        }
    }
    let foreign = || LoadError::Foreign {
        path: output.to_path_buf(),
        loader: loader.to_string(),
    };
    match std::fs::read_dir(output) {
        Ok(mut entries) => {
            if entries.next().is_none() {
                return Ok(());
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(_) => return Err(foreign()),
    }
    let manifest = std::fs::read(output.join(MANIFEST_FILE)).unwrap_or_default();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap_or_default();
    if manifest["format"] == FORMAT && manifest["loader"] == loader {
        Ok(())
    } else {
        Err(foreign())
    }
}

/// How many pictures of each kind a folder refers to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct PictureCounts {
    pub copied: usize,
    /// Brought by an earlier `ragar data pictures` and kept.
    pub kept: usize,
    /// For `ragar data pictures`.
    pub to_fetch: usize,
    pub blank: usize,
}

/// A folder beside the output that takes its place once it is complete.
#[derive(Debug)]
pub struct Staged {
    staging: tempfile::TempDir,
    output: PathBuf,
}

impl Staged {
    /// # Errors
    /// When nothing can be written there.
    pub fn new(output: &Path) -> Result<Self, LoadError> {
        let parent = match output.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        std::fs::create_dir_all(parent).map_err(LoadError::io(parent))?;
        let staging = tempfile::Builder::new()
            .prefix(".ragar-data-")
            .tempdir_in(parent)
            .map_err(LoadError::io(parent))?;
        let staged = Self {
            staging,
            output: output.to_path_buf(),
        };
        let images = staged.content().join("images");
        std::fs::create_dir_all(&images).map_err(LoadError::io(&images))?;
        Ok(staged)
    }

    fn content(&self) -> PathBuf {
        self.staging.path().join("content")
    }

    /// Writes the three tables and brings the pictures that are files.
    ///
    /// # Errors
    /// A file that cannot be written, or a picture that cannot be copied.
    pub fn write_folder(
        &self,
        found: &Gathering,
        selected: &Selected,
    ) -> Result<PictureCounts, LoadError> {
        let counts = self.write_items(found, selected)?;
        self.write_table(
            INTERACTIONS_FILE,
            &["user_id", "item_id", "timestamp"],
            selected.interactions.iter().map(|one| {
                [
                    found.users[one.user as usize].clone(),
                    found.items[one.item as usize].id.clone(),
                    one.timestamp.to_string(),
                ]
            }),
        )?;
        self.write_histories(found, selected)?;
        Ok(counts)
    }

    fn write_items(
        &self,
        found: &Gathering,
        selected: &Selected,
    ) -> Result<PictureCounts, LoadError> {
        let items = || {
            selected
                .items
                .iter()
                .map(|&item| &found.items[item as usize])
        };
        let with_urls = items().any(|item| matches!(item.picture, Picture::Url(_)));
        let mut columns = vec!["item_id", "image", "text"];
        if with_urls {
            columns.push(URL_COLUMN);
        }
        columns.extend(&found.attributes);
        let mut counts = PictureCounts::default();
        let mut seen = BTreeSet::new();
        let mut rows = Vec::with_capacity(selected.items.len());
        for item in items() {
            let image = self.bring(&item.id, &item.picture, &mut seen, &mut counts)?;
            let mut row = vec![item.id.clone(), image, item.text.clone()];
            if with_urls {
                row.push(match &item.picture {
                    Picture::Url(url) => url.clone(),
                    _ => String::new(),
                });
            }
            row.extend(item.attributes.iter().cloned());
            rows.push(row);
        }
        self.write_table(ITEMS_FILE, &columns, rows.into_iter())?;
        Ok(counts)
    }

    /// Puts a picture into the folder, or keeps its place; its path in the folder.
    fn bring(
        &self,
        id: &str,
        picture: &Picture,
        seen: &mut BTreeSet<String>,
        counts: &mut PictureCounts,
    ) -> Result<String, LoadError> {
        let image = match picture {
            Picture::File(source) => picture_names::of_item(id, source),
            Picture::Url(url) => picture_names::of_url(url),
            Picture::None => BLANK.to_string(),
        };
        let target = self.content().join(&image);
        match picture {
            Picture::File(source) => {
                std::fs::copy(source, &target).map_err(LoadError::io(source))?;
                counts.copied += 1;
            }
            Picture::Url(_) if !seen.insert(image.clone()) => {}
            Picture::Url(_) => {
                if self.keep_fetched(&image, &target)? {
                    counts.kept += 1;
                } else {
                    counts.to_fetch += 1;
                }
            }
            Picture::None => {
                if seen.insert(image.clone()) {
                    RgbImage::from_pixel(BLANK_SIDE, BLANK_SIDE, Rgb([255; 3]))
                        .save(&target)
                        .map_err(|error| LoadError::file(&target, error))?;
                }
                counts.blank += 1;
            }
        }
        Ok(image)
    }

    /// A picture that an earlier output had fetched from the same address is taken over, not fetched again.
    fn keep_fetched(&self, image: &str, target: &Path) -> Result<bool, LoadError> {
        let old = self.output.join(image);
        if !old.is_file() {
            return Ok(false);
        }
        if let Some(folder) = target.parent() {
            std::fs::create_dir_all(folder).map_err(LoadError::io(folder))?;
        }
        // A second name for the same bytes where the file system has that.
        if std::fs::hard_link(&old, target).is_err() {
            std::fs::copy(&old, target).map_err(LoadError::io(&old))?;
        }
        Ok(true)
    }

    fn write_histories(&self, found: &Gathering, selected: &Selected) -> Result<(), LoadError> {
        let path = self.content().join(HISTORIES_FILE);
        let mut file = self.create(&path)?;
        let id = |item: u32| found.items[item as usize].id.clone();
        for history in &selected.histories {
            let line = HistoryLine {
                user: history.user.clone(),
                history: history.history.iter().map(|&item| id(item)).collect(),
                reference: id(history.reference),
                target: None,
                split: history.split,
            };
            serde_json::to_writer(&mut file, &line)
                .map_err(|error| LoadError::file(&path, error))?;
            file.write_all(b"\n").map_err(LoadError::io(&path))?;
        }
        finish(file, &path)
    }

    fn write_table<R: IntoIterator<Item = String>>(
        &self,
        name: &str,
        columns: &[&str],
        rows: impl Iterator<Item = R>,
    ) -> Result<(), LoadError> {
        let path = self.content().join(name);
        let mut writer = csv::Writer::from_writer(self.create(&path)?);
        let failed = |error: csv::Error| LoadError::file(&path, error);
        writer.write_record(columns).map_err(failed)?;
        for row in rows {
            writer.write_record(row).map_err(failed)?;
        }
        let file = writer
            .into_inner()
            .map_err(|error| LoadError::file(&path, error.error()))?;
        finish(file, &path)
    }

    fn create(&self, path: &Path) -> Result<BufWriter<File>, LoadError> {
        File::create(path)
            .map(BufWriter::new)
            .map_err(LoadError::io(path))
    }

    /// Writes the manifest and puts the folder into its place.
    ///
    /// # Errors
    /// A full disk; what was there before is there still.
    pub fn finish(
        self,
        loader: &str,
        options: &impl Serialize,
        report: &impl Serialize,
    ) -> Result<(), LoadError> {
        #[derive(Serialize)]
        struct Manifest<'a, O, R> {
            format: &'static str,
            loader: &'a str,
            options: &'a O,
            report: &'a R,
        }
        let path = self.content().join(MANIFEST_FILE);
        let mut file = self.create(&path)?;
        let manifest = Manifest {
            format: FORMAT,
            loader,
            options,
            report,
        };
        serde_json::to_writer_pretty(&mut file, &manifest)
            .map_err(|error| LoadError::file(&path, error))?;
        file.write_all(b"\n").map_err(LoadError::io(&path))?;
        finish(file, &path)?;
        // Moved into the staging folder, which is removed when this ends.
        let old = self.staging.path().join("old");
        let replaces = self.output.exists();
        if replaces {
            std::fs::rename(&self.output, &old).map_err(LoadError::io(&self.output))?;
        }
        std::fs::rename(self.content(), &self.output).map_err(|error| {
            if replaces {
                // Best effort: the error below is what counts.
                let _ = std::fs::rename(&old, &self.output);
            }
            LoadError::file(&self.output, error)
        })
    }
}

fn finish(file: BufWriter<File>, path: &Path) -> Result<(), LoadError> {
    let file = file
        .into_inner()
        .map_err(|error| LoadError::file(path, error.error()))?;
    file.sync_all().map_err(LoadError::io(path))
}
