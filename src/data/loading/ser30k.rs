//! SER30K: `Images/<topic>/<file>` and annotations that name topic, file, text and emotion.
//!
//! Its repository describes the annotations in two places: `Annotations/{train,val,test}.json` (README) and
//! `Annotations/image-level/{train,val,test}.json` beside `Annotations/all_annos.json` (the data's own notes and the
//! code). Each is an object whose `annotations` list has `topic`, `file_name`, `text` and `anno`, a number from 1 to 7
//! for the emotion. What the numbers mean is not written there; `emotions` gives them words.
//!
//! There are no users. As in the paper, two random themes merged are one user's history, and the reference comes from a
//! third.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use rand::seq::SliceRandom;
use rand::{Rng as _, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::LoadOptions;
use super::assembling::{Assembly, LoadReport};
use super::error::{LoadError, Place};
use super::gathering::{FoundHistory, FoundItem, Gathering, Picture};
use super::picture_folder::inside;
use super::text_file;

/// What to load.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ser30kOptions {
    /// The folder with `Images` and `Annotations`.
    pub source: PathBuf,
    /// Users to invent; the paper has 2,230.
    pub num_users: usize,
    /// Words for the labels 1, 2, 3 …; empty: what the annotations say, or the number.
    pub emotions: Vec<String>,
    pub load: LoadOptions,
}

impl Default for Ser30kOptions {
    fn default() -> Self {
        Self {
            source: PathBuf::new(),
            num_users: 2_230,
            emotions: Vec::new(),
            load: LoadOptions::default(),
        }
    }
}

/// Writes the folder `output`.
///
/// # Errors
/// The first fault with its file and entry; an output that is not ours to replace.
pub fn load(options: &Ser30kOptions, output: &Path) -> Result<LoadReport, LoadError> {
    Assembly {
        loader: "ser30k",
        sources: &[&options.source],
        output,
        options,
        selection: &options.load.selection,
    }
    .run(|| gather(options))
}

/// Files are looked for in this order; the first folder that has one is read whole.
fn annotation_files(source: &Path) -> Result<Vec<PathBuf>, LoadError> {
    let folder = source.join("Annotations");
    let parts = ["train.json", "val.json", "test.json"];
    let places = [
        vec![folder.join("all_annos.json")],
        parts
            .map(|part| folder.join("image-level").join(part))
            .to_vec(),
        parts.map(|part| folder.join(part)).to_vec(),
    ];
    for files in &places {
        let there: Vec<PathBuf> = files
            .iter()
            .filter(|file| file.is_file())
            .cloned()
            .collect();
        if !there.is_empty() {
            return Ok(there);
        }
    }
    Err(LoadError::file(
        &folder,
        "no annotations: expected all_annos.json, image-level/{train,val,test}.json or {train,val,test}.json",
    ))
}

fn gather(options: &Ser30kOptions) -> Result<Gathering, LoadError> {
    let mut found = Gathering::new(options.load.skip_bad, &["theme", "emotion"]);
    let images = options.source.join("Images");
    if !images.is_dir() {
        return Err(LoadError::file(&images, "no such folder"));
    }
    for file in annotation_files(&options.source)? {
        add_annotations(&file, &images, options, &mut found)?;
    }
    invent_users(options, &mut found)?;
    Ok(found)
}

fn add_annotations(
    path: &Path,
    images: &Path,
    options: &Ser30kOptions,
    found: &mut Gathering,
) -> Result<(), LoadError> {
    let document: Value = serde_json::from_reader(text_file::open(path)?)
        .map_err(|error| LoadError::file(path, format!("no JSON: {error}")))?;
    let entries = document["annotations"]
        .as_array()
        .ok_or_else(|| LoadError::file(path, "expected an object with a list `annotations`"))?;
    let names = category_names(&document);
    let mut seen = HashSet::new();
    for (index, entry) in entries.iter().enumerate() {
        // Entries have no lines; their number is what can be found again.
        let place = Place {
            path,
            row: index + 1,
        };
        if let Err(fault) = add_entry(entry, place, images, &names, options, &mut seen, found) {
            found.faults.meet(fault)?;
        }
    }
    Ok(())
}

fn add_entry(
    entry: &Value,
    place: Place<'_>,
    images: &Path,
    names: &HashMap<i64, String>,
    options: &Ser30kOptions,
    seen: &mut HashSet<String>,
    found: &mut Gathering,
) -> Result<(), LoadError> {
    let text_of = |key: &str| {
        entry[key]
            .as_str()
            .filter(|text| !text.is_empty())
            .ok_or_else(|| place.fault(Some(key), "expected a text, as entries of SER30K have"))
    };
    let (topic, file) = (text_of("topic")?, text_of("file_name")?);
    let relative = format!("{topic}/{file}");
    let picture = match inside(images, &relative) {
        Ok(Some(path)) => Picture::File(path),
        Ok(None) => Picture::None,
        Err(reason) => return Err(place.fault(Some("file_name"), reason)),
    };
    let emotion = emotion(&entry["anno"], names, &options.emotions)
        .map_err(|reason| place.fault(Some("anno"), reason))?;
    if !seen.insert(relative.clone()) {
        return Err(place.fault(None, format!("{relative:?} stands twice")));
    }
    let theme = theme_words(topic);
    let written = entry["text"].as_str().unwrap_or_default().trim();
    let mut text = format!("sticker of {theme}");
    if !written.is_empty() {
        text += &format!(", saying {written:?}");
    }
    // A bare number tells a reader of texts nothing.
    if emotion.parse::<i64>().is_err() {
        text += &format!(", {emotion}");
    }
    let item = FoundItem {
        id: relative,
        text,
        picture,
        attributes: vec![topic.to_string(), emotion],
    };
    found.add_item(item, place)
}

/// `categories`, where a file has them: `[{"id": 1, "name": "anger"}, …]`.
fn category_names(document: &Value) -> HashMap<i64, String> {
    let categories = document["categories"].as_array();
    categories
        .into_iter()
        .flatten()
        .filter_map(|category| {
            Some((
                category["id"].as_i64()?,
                category["name"].as_str()?.to_lowercase(),
            ))
        })
        .collect()
}

fn emotion(
    label: &Value,
    names: &HashMap<i64, String>,
    given: &[String],
) -> Result<String, String> {
    if let Some(word) = label.as_str().filter(|word| !word.trim().is_empty()) {
        return Ok(word.trim().to_lowercase());
    }
    let Some(number) = label.as_i64().filter(|number| *number >= 1) else {
        return Err(format!(
            "{label} is no emotion: expected a number from 1 on"
        ));
    };
    if given.is_empty() {
        return Ok(names.get(&number).cloned().unwrap_or(number.to_string()));
    }
    given
        .get(number as usize - 1)
        .cloned()
        .ok_or_else(|| format!("label {number}, and --emotions names {} only", given.len()))
}

/// `01-panda-bear` as one would say it: `panda bear`.
fn theme_words(topic: &str) -> String {
    let words = topic.split(['-', '_', ' ']).filter(|word| !word.is_empty());
    let words: Vec<&str> = words.collect();
    let named: Vec<&str> = match words.as_slice() {
        [first, rest @ ..] if !rest.is_empty() && first.bytes().all(|b| b.is_ascii_digit()) => {
            rest.to_vec()
        }
        all => all.to_vec(),
    };
    named.join(" ").to_lowercase()
}

/// When the first user met the first sticker; users follow a day apart, stickers a minute.
const FIRST_TIMESTAMP: i64 = 1_600_000_000;

fn invent_users(options: &Ser30kOptions, found: &mut Gathering) -> Result<(), LoadError> {
    let length = options.load.selection.history_length;
    let mut themes: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
    let mut num_with_picture = 0;
    for (number, item) in found.items.iter().enumerate() {
        if item.picture != Picture::None {
            themes
                .entry(&item.attributes[0])
                .or_default()
                .push(number as u32);
            num_with_picture += 1;
        }
    }
    if num_with_picture == 0 {
        return Err(LoadError::Nothing {
            reason: format!(
                "none of the {} annotated stickers has a picture in {}",
                found.items.len(),
                options.source.join("Images").display()
            ),
        });
    }
    let themes: Vec<Vec<u32>> = themes.into_values().collect();
    let mut sizes: Vec<usize> = themes.iter().map(Vec::len).collect();
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    let largest_pair: usize = sizes.iter().take(2).sum();
    if themes.len() < 3 || largest_pair < length {
        return Err(LoadError::Nothing {
            reason: format!(
                "a history of {length} stickers of two themes and a reference of a third need more than {} themes \
                 whose two largest hold {largest_pair}; choose a smaller --history",
                themes.len()
            ),
        });
    }
    let mut rng = ChaCha8Rng::seed_from_u64(options.load.selection.seed);
    let mut histories = Vec::with_capacity(options.num_users);
    let path = options.source.join("Annotations");
    while histories.len() < options.num_users {
        let [one, other, third] = three(themes.len(), &mut rng);
        let (first, second) = (&themes[one], &themes[other]);
        if first.len() + second.len() < length {
            continue;
        }
        let number = histories.len();
        let history = merged(first, second, length, &mut rng);
        let reference = themes[third][rng.random_range(0..themes[third].len())];
        let user = format!("u{number:05}");
        for (minute, &item) in history.iter().enumerate() {
            let timestamp = FIRST_TIMESTAMP + number as i64 * 86_400 + minute as i64 * 60;
            let id = found.items[item as usize].id.clone();
            let place = Place {
                path: &path,
                row: number + 1,
            };
            found.add_interaction(&user, &id, timestamp, place)?;
        }
        histories.push(FoundHistory {
            user,
            history,
            reference,
            split: None,
        });
    }
    found.histories = Some(histories);
    Ok(())
}

fn three(count: usize, rng: &mut ChaCha8Rng) -> [usize; 3] {
    let picked = rand::seq::index::sample(rng, count, 3);
    [picked.index(0), picked.index(1), picked.index(2)]
}

/// `length` stickers, half of each theme where both have them, shuffled.
fn merged(first: &[u32], second: &[u32], length: usize, rng: &mut ChaCha8Rng) -> Vec<u32> {
    let num_first = (length / 2)
        .max(length.saturating_sub(second.len()))
        .min(first.len());
    let mut history: Vec<u32> = some(first, num_first, rng);
    history.extend(some(second, length - num_first, rng));
    history.shuffle(rng);
    history
}

/// `count` of a list, each at most once.
fn some(list: &[u32], count: usize, rng: &mut ChaCha8Rng) -> Vec<u32> {
    let picked = rand::seq::index::sample(rng, list.len(), count);
    picked.into_iter().map(|index| list[index]).collect()
}
