//! Loaders against small files in the published layouts, sound and spoilt.

mod movielens;
mod mutations;
#[cfg(feature = "parquet")]
mod parquet;
mod pog;
mod recbole;
mod selection;
mod ser30k;
mod table;

use std::path::{Path, PathBuf};

use image::{Rgb, RgbImage};
use ragar::data::check::check;
use ragar::data::folder::DataFolder;
use ragar::data::image::ImageLimits;
use ragar::data::loading::{LoadError, LoadOptions, LoadReport};

/// A folder for sources and outputs that is gone after the test.
struct Bench {
    root: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        Self {
            root: tempfile::tempdir().expect("a folder"),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn out(&self) -> PathBuf {
        self.path("out")
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(path, bytes).expect("a file");
    }

    /// A picture of one colour.
    fn picture(&self, name: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        RgbImage::from_pixel(4, 4, Rgb([200, 20, 90]))
            .save(path)
            .expect("a picture");
    }

    /// The written folder, which must open and pass the check, but for pictures that are still to be fetched.
    fn data(&self) -> DataFolder {
        let report = check(self.out(), &ImageLimits::default()).expect("the folder exists");
        let others: Vec<String> = report
            .findings
            .iter()
            .map(ToString::to_string)
            .filter(|finding| {
                !finding.contains("is missing") && !finding.contains("the text is empty")
            })
            .collect();
        assert!(others.is_empty(), "{others:?}");
        DataFolder::open(self.out()).expect("a data folder")
    }

    /// Nothing but what was there before: no half output, no staging folder.
    fn assert_untouched(&self) {
        let left: Vec<_> = std::fs::read_dir(self.root.path())
            .expect("the folder")
            .map(|entry| entry.expect("an entry").file_name())
            .filter(|name| {
                let name = name.to_string_lossy();
                name == "out" || name.starts_with(".ragar")
            })
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

/// A history of `length` items, everything else as usual.
fn history(length: usize) -> LoadOptions {
    let mut options = LoadOptions::default();
    options.selection.history_length = length;
    options
}

/// The ids of a history and its reference.
fn ids(data: &DataFolder, place: usize) -> (Vec<String>, String) {
    let history = &data.histories[place];
    let id = |item: usize| data.catalogue[item].id.clone();
    (
        history.history.iter().map(|&item| id(item)).collect(),
        id(history.reference),
    )
}

#[track_caller]
fn assert_refused(result: Result<LoadReport, LoadError>, words: &[&str]) {
    let message = result.expect_err("must be refused").to_string();
    for word in words {
        assert!(message.contains(word), "no {word:?} in: {message}");
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
