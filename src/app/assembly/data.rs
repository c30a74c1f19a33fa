//! The data folder, with the stickers' truth where it is known.

use std::collections::{BTreeMap, BTreeSet};

use image::RgbImage;
use rayon::prelude::*;

use crate::app::config::DataConfig;
use crate::app::output::Output;
use crate::data::folder::DataFolder;
use crate::data::history::{History, Split};
use crate::data::image::{ImageError, decode};
use crate::data::stickers::Stickers;
use crate::data::stickers::folder::STICKERS_FILE;

/// A data folder; sticker folders also say what each picture shows.
#[derive(Debug)]
pub struct DataSet {
    kind: Kind,
    config: DataConfig,
}

#[derive(Debug)]
enum Kind {
    Plain(DataFolder),
    Stickers(Stickers),
}

impl DataSet {
    /// Opens the configured folder and holds its histories against the configured length.
    ///
    /// # Errors
    /// The first fault with its file and row; with `data.skip_bad`, only what leaves nothing to work on.
    pub fn open(config: &DataConfig, output: Output) -> anyhow::Result<Self> {
        let kind = if config.folder.join(STICKERS_FILE).is_file() {
            Kind::Stickers(Stickers::open(&config.folder)?)
        } else if config.skip_bad {
            let (folder, findings) = DataFolder::open_skipping_bad(&config.folder)?;
            for finding in &findings {
                output.note(format!("skipped: {finding}"));
            }
            Kind::Plain(without_broken_pictures(&folder, config, output))
        } else {
            Kind::Plain(DataFolder::open(&config.folder)?)
        };
        let data = Self {
            kind,
            config: config.clone(),
        };
        if config.history_length > 0 && !config.skip_bad {
            data.folder()
                .require_history_length(config.history_length)?;
        }
        Ok(data)
    }

    /// The tables.
    pub fn folder(&self) -> &DataFolder {
        match &self.kind {
            Kind::Plain(folder) => folder,
            Kind::Stickers(stickers) => &stickers.folder,
        }
    }

    /// What each picture shows, where that is known.
    pub fn stickers(&self) -> Option<&Stickers> {
        match &self.kind {
            Kind::Plain(_) => None,
            Kind::Stickers(stickers) => Some(stickers),
        }
    }

    /// Is this item kept from all training?
    pub fn is_held_out(&self, item: usize) -> bool {
        self.stickers()
            .is_some_and(|stickers| stickers.stickers[item].held_out)
    }

    /// The first `count` histories of a split (0: all); histories without a split train.
    pub fn users(&self, split: Split, count: usize) -> Vec<&History> {
        let most = if count == 0 { usize::MAX } else { count };
        self.folder()
            .histories
            .iter()
            .filter(|history| history.split.unwrap_or(Split::Train) == split)
            .take(most)
            .collect()
    }

    /// One item's picture.
    ///
    /// # Errors
    /// When it cannot be used, with its path.
    pub fn picture(&self, item: usize) -> Result<RgbImage, ImageError> {
        decode(
            &self.folder().catalogue[item].image,
            &self.config.image_limits,
        )
    }

    /// Every user's items by time, and the users' names in the same order: first seen, first listed.
    pub fn interactions(&self) -> (Vec<String>, Vec<Vec<usize>>) {
        let mut rows: BTreeMap<&str, usize> = BTreeMap::new();
        let mut users = Vec::new();
        let mut timed: Vec<Vec<(i64, usize)>> = Vec::new();
        for interaction in &self.folder().interactions {
            let row = *rows.entry(&interaction.user).or_insert_with(|| {
                users.push(interaction.user.clone());
                timed.push(Vec::new());
                users.len() - 1
            });
            timed[row].push((interaction.timestamp, interaction.item));
        }
        let items = timed
            .into_iter()
            .map(|mut row| {
                // Stable: equal times keep the file's order.
                row.sort_by_key(|(time, _)| *time);
                row.into_iter().map(|(_, item)| item).collect()
            })
            .collect();
        (users, items)
    }
}

/// Decodes every picture; reports and drops the items whose picture cannot be used.
fn without_broken_pictures(folder: &DataFolder, config: &DataConfig, output: Output) -> DataFolder {
    let broken: Vec<(usize, ImageError)> = folder
        .catalogue
        .items()
        .par_iter()
        .enumerate()
        .filter_map(|(place, item)| {
            let error = decode(&item.image, &config.image_limits).err()?;
            Some((place, error))
        })
        .collect();
    if broken.is_empty() {
        return folder.clone();
    }
    for (place, error) in &broken {
        output.note(format!(
            "skipped: item {}: {error}",
            folder.catalogue[*place].id
        ));
    }
    let places: BTreeSet<usize> = broken.into_iter().map(|(place, _)| place).collect();
    folder.without(&places)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three items, the second with a broken picture; two users, the second of whom refers to it.
    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let write =
            |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        for name in ["a.png", "c.png"] {
            RgbImage::new(4, 4).save(folder.path().join(name)).unwrap();
        }
        write("b.png", "not a picture");
        write(
            "items.csv",
            "item_id,image,text\na,a.png,one\nb,b.png,two\nc,c.png,three\n",
        );
        write(
            "interactions.csv",
            "user_id,item_id,timestamp\nv,c,5\nu,c,9\nu,b,2\nu,a,1\n",
        );
        write(
            "histories.jsonl",
            "{\"user\":\"u\",\"history\":[\"b\",\"a\"],\"reference\":\"c\",\"target\":\"b\",\"split\":\"test\"}\n\
             {\"user\":\"v\",\"history\":[\"a\"],\"reference\":\"b\"}\n",
        );
        folder
    }

    fn open(folder: &tempfile::TempDir, skip_bad: bool) -> anyhow::Result<DataSet> {
        let config = DataConfig {
            folder: folder.path().into(),
            history_length: 0,
            skip_bad,
            ..DataConfig::default()
        };
        let output = Output {
            json: false,
            quiet: true,
        };
        DataSet::open(&config, output)
    }

    #[test]
    fn users_are_listed_as_first_seen_and_their_items_by_time() {
        let folder = folder();
        let data = open(&folder, false).unwrap();
        let (users, items) = data.interactions();
        assert_eq!(users, ["v", "u"]);
        assert_eq!(items, [vec![2], vec![0, 1, 2]]);
        assert!(data.picture(0).is_ok() && data.picture(1).is_err());
        assert_eq!(data.users(Split::Test, 0).len(), 1);
        assert_eq!(data.users(Split::Train, 0)[0].user, "v");
    }

    #[test]
    fn items_with_broken_pictures_leave_everything() {
        let folder = folder();
        let data = open(&folder, true).unwrap();
        let ids: Vec<&str> = data
            .folder()
            .catalogue
            .iter()
            .map(|item| item.id.as_str())
            .collect();
        assert_eq!(ids, ["a", "c"]);
        assert_eq!(data.interactions().1, [vec![1], vec![0, 1]]);
        let histories = &data.folder().histories;
        assert_eq!(histories.len(), 1, "v's reference is gone");
        assert_eq!(histories[0].history, [0]);
        assert_eq!((histories[0].reference, histories[0].target), (1, None));
    }

    #[test]
    fn histories_are_held_against_the_configured_length() {
        let folder = folder();
        let config = DataConfig {
            folder: folder.path().into(),
            ..DataConfig::default()
        };
        let output = Output {
            json: false,
            quiet: true,
        };
        let error = DataSet::open(&config, output).unwrap_err().to_string();
        assert!(error.contains("histories.jsonl, row 1"), "{error}");
        assert!(error.contains("expected 20"), "{error}");
    }
}
