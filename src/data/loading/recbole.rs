//! RecBole's atomic files: `<name>.inter` and `<name>.item`, tab-separated, with `name:type` in the first line.

use std::path::{Path, PathBuf};

use csv::StringRecord;
use serde::{Deserialize, Serialize};

use super::LoadOptions;
use super::addresses;
use super::assembling::{Assembly, LoadReport};
use super::error::{LoadError, Place};
use super::gathering::{FoundItem, Gathering, Picture};
use super::movielens::finite;
use super::picture_folder::PictureFolder;
use super::rows::{Delimited, Dialect, Rows};
use crate::data::folder::seconds;

/// What to load.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RecBoleOptions {
    /// The folder of the atomic files, or the `.inter` file itself.
    pub source: PathBuf,
    /// Pictures named by item.
    pub images: Option<PathBuf>,
    pub user: Option<String>,
    pub item: Option<String>,
    pub time: Option<String>,
    pub rating: Option<String>,
    pub min_rating: Option<f64>,
    /// Fields of `.item` that make the text; empty: every `token_seq`, or fields named like titles.
    pub text: Vec<String>,
    /// Field of `.item` with a picture's address.
    pub url: Option<String>,
    pub load: LoadOptions,
}

/// Writes the folder `output`.
///
/// # Errors
/// The first fault with its file and row; an output that is not ours to replace.
pub fn load(options: &RecBoleOptions, output: &Path) -> Result<LoadReport, LoadError> {
    let images = options.images.as_deref();
    let sources: Vec<&Path> = [options.source.as_path()]
        .into_iter()
        .chain(images)
        .collect();
    Assembly {
        loader: "recbole",
        sources: &sources,
        output,
        options,
        selection: &options.load.selection,
    }
    .run(|| gather(options))
}

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FieldKind {
    Token,
    TokenSeq,
    Float,
    FloatSeq,
}

#[derive(Debug)]
struct Field {
    name: String,
    kind: FieldKind,
}

/// An atomic file with its fields taken apart.
struct Atomic {
    rows: Delimited,
    fields: Vec<Field>,
}

impl Atomic {
    fn open(path: &Path, options: &RecBoleOptions) -> Result<Self, LoadError> {
        let dialect = Dialect {
            delimiter: b'\t',
            // A title may begin with a quotation mark.
            quoting: false,
            encoding: options.load.encoding,
        };
        let rows = Delimited::open(path, dialect)?;
        let fields = rows.columns().iter().map(|column| {
            let (name, kind) = column.rsplit_once(':').ok_or_else(|| {
                let reason = format!("the field {column:?} has no type; expected name:type, such as user_id:token");
                LoadError::file(path, reason)
            })?;
            let kind = match kind {
                "token" => FieldKind::Token,
                "token_seq" => FieldKind::TokenSeq,
                "float" => FieldKind::Float,
                "float_seq" => FieldKind::FloatSeq,
                other => {
                    let reason = format!("the field {name:?} has the type {other:?}; expected token, token_seq, float or float_seq");
                    return Err(LoadError::file(path, reason));
                }
            };
            Ok(Field { name: name.to_string(), kind })
        });
        let fields = fields.collect::<Result<_, _>>()?;
        Ok(Self { rows, fields })
    }

    /// The field called `wanted`, or one of `usual` with a kind that fits.
    fn find(
        &self,
        wanted: Option<&str>,
        usual: &[&str],
        kinds: &[FieldKind],
        role: &'static str,
        option: &'static str,
    ) -> Result<Option<usize>, LoadError> {
        let named = |name: &str| self.fields.iter().position(|field| field.name == name);
        let found = match wanted {
            Some(name) => Some(named(name).ok_or_else(|| self.missing(role, option))?),
            None => usual.iter().find_map(|name| named(name)),
        };
        if let Some(place) = found
            && !kinds.contains(&self.fields[place].kind)
        {
            let reason = format!(
                "the field {:?} cannot be the {role}: it is a {:?}",
                self.fields[place].name, self.fields[place].kind
            );
            return Err(LoadError::file(self.rows.path(), reason));
        }
        Ok(found)
    }

    fn missing(&self, role: &'static str, option: &'static str) -> LoadError {
        let names: Vec<&str> = self
            .fields
            .iter()
            .map(|field| field.name.as_str())
            .collect();
        LoadError::Column {
            path: self.rows.path().to_path_buf(),
            role,
            found: names.join(", "),
            option,
        }
    }

    /// Calls `each` with every row that can be read.
    fn for_rows(
        mut self,
        found: &mut Gathering,
        mut each: impl FnMut(&mut Gathering, &StringRecord, Place<'_>) -> Result<(), LoadError>,
    ) -> Result<(), LoadError> {
        let path = self.rows.path().to_path_buf();
        let mut row = StringRecord::new();
        loop {
            let result = match self.rows.read(&mut row) {
                Ok(None) => return Ok(()),
                Ok(Some(number)) => each(
                    found,
                    &row,
                    Place {
                        path: &path,
                        row: number,
                    },
                ),
                Err(error) => Err(error),
            };
            if let Err(error) = result {
                found.faults.meet(error)?;
            }
        }
    }
}

const IDS: [FieldKind; 2] = [FieldKind::Token, FieldKind::Float];
const NUMBERS: [FieldKind; 2] = [FieldKind::Float, FieldKind::Token];

fn gather(options: &RecBoleOptions) -> Result<Gathering, LoadError> {
    let mut found = Gathering::new(options.load.skip_bad, &[]);
    let interactions = interaction_file(&options.source)?;
    let items = interactions.with_extension("item");
    let images = options
        .images
        .as_deref()
        .map(PictureFolder::open)
        .transpose()?;
    if items.is_file() {
        add_items(&items, images.as_ref(), options, &mut found)?;
        add_interactions(&interactions, true, images.as_ref(), options, &mut found)?;
    } else {
        add_interactions(&interactions, false, images.as_ref(), options, &mut found)?;
    }
    Ok(found)
}

/// `<folder>/<folder's name>.inter`, or the only one there.
fn interaction_file(source: &Path) -> Result<PathBuf, LoadError> {
    if !source.is_dir() {
        return Ok(source.to_path_buf());
    }
    let usual = source
        .canonicalize()
        .ok()
        .and_then(|real| Some(source.join(format!("{}.inter", real.file_name()?.to_str()?))));
    if let Some(file) = usual.filter(|file| file.is_file()) {
        return Ok(file);
    }
    let entries = std::fs::read_dir(source).map_err(LoadError::io(source))?;
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|ending| ending == "inter"))
        .collect();
    files.sort();
    match files.as_slice() {
        [file] => Ok(file.clone()),
        [] => Err(LoadError::file(source, "the folder holds no .inter file")),
        several => {
            let names: Vec<String> = several
                .iter()
                .map(|file| file.display().to_string())
                .collect();
            let reason = format!(
                "the folder holds several .inter files; name one: {}",
                names.join(", ")
            );
            Err(LoadError::file(source, reason))
        }
    }
}

fn add_items(
    path: &Path,
    images: Option<&PictureFolder>,
    options: &RecBoleOptions,
    found: &mut Gathering,
) -> Result<(), LoadError> {
    let atomic = Atomic::open(path, options)?;
    let item = atomic
        .find(
            options.item.as_deref(),
            &["item_id"],
            &IDS,
            "item",
            "--item",
        )?
        .ok_or_else(|| atomic.missing("item", "--item"))?;
    let url = atomic.find(
        options.url.as_deref(),
        &[
            "image_url",
            "img_url",
            "imageURL",
            "imUrl",
            "pic_url",
            "poster_url",
            "image",
        ],
        &[FieldKind::Token, FieldKind::TokenSeq],
        "picture's address",
        "--url",
    )?;
    let text = text_fields(&atomic, item, url, options)?;
    atomic.for_rows(found, |found, row, place| {
        let words: Vec<&str> = text
            .iter()
            .map(|&place| row[place].trim())
            .filter(|words| !words.is_empty())
            .collect();
        let id = row[item].trim().to_string();
        let mut picture = own_picture(images, &id);
        if let (Picture::None, Some(url)) = (&picture, url) {
            picture = match addresses::complete(&row[url]) {
                Ok(Some(url)) => Picture::Url(url),
                Ok(None) => Picture::None,
                Err(reason) => return Err(place.fault(Some("picture's address"), reason)),
            };
        }
        let item = FoundItem {
            id,
            text: words.join(", "),
            picture,
            attributes: Vec::new(),
        };
        found.add_item(item, place)
    })
}

fn own_picture(images: Option<&PictureFolder>, id: &str) -> Picture {
    match images.and_then(|images| images.named(id)) {
        Some(path) => Picture::File(path.to_path_buf()),
        None => Picture::None,
    }
}

fn text_fields(
    atomic: &Atomic,
    item: usize,
    url: Option<usize>,
    options: &RecBoleOptions,
) -> Result<Vec<usize>, LoadError> {
    let any = [
        FieldKind::Token,
        FieldKind::TokenSeq,
        FieldKind::Float,
        FieldKind::FloatSeq,
    ];
    if !options.text.is_empty() {
        let named = options.text.iter().map(|name| {
            let found = atomic.find(Some(name), &[], &any, "text", "--text")?;
            found.ok_or_else(|| atomic.missing("text", "--text"))
        });
        return named.collect();
    }
    let others = || {
        let fields = atomic.fields.iter().enumerate();
        fields.filter(|(place, _)| *place != item && Some(*place) != url)
    };
    let sequences: Vec<usize> = others()
        .filter(|(_, field)| field.kind == FieldKind::TokenSeq)
        .map(|(place, _)| place)
        .collect();
    if !sequences.is_empty() {
        return Ok(sequences);
    }
    let telling = [
        "title", "name", "desc", "categor", "genre", "brand", "class",
    ];
    Ok(others()
        .filter(|(_, field)| {
            let name = field.name.to_lowercase();
            field.kind == FieldKind::Token && telling.iter().any(|word| name.contains(word))
        })
        .map(|(place, _)| place)
        .collect())
}

fn add_interactions(
    path: &Path,
    items_are_known: bool,
    images: Option<&PictureFolder>,
    options: &RecBoleOptions,
    found: &mut Gathering,
) -> Result<(), LoadError> {
    let atomic = Atomic::open(path, options)?;
    let user = atomic
        .find(
            options.user.as_deref(),
            &["user_id", "session_id"],
            &IDS,
            "user",
            "--user",
        )?
        .ok_or_else(|| atomic.missing("user", "--user"))?;
    let item = atomic
        .find(
            options.item.as_deref(),
            &["item_id"],
            &IDS,
            "item",
            "--item",
        )?
        .ok_or_else(|| atomic.missing("item", "--item"))?;
    let time = atomic.find(
        options.time.as_deref(),
        &["timestamp"],
        &NUMBERS,
        "time",
        "--time",
    )?;
    let rating = match options.min_rating {
        None => None,
        Some(least) => {
            let wanted = options.rating.as_deref();
            let rating = atomic.find(wanted, &["rating"], &NUMBERS, "rating", "--rating")?;
            let rating = rating.ok_or_else(|| atomic.missing("rating", "--rating"))?;
            Some((rating, least))
        }
    };
    atomic.for_rows(found, |found, row, place| {
        let timestamp = match time {
            // The order of the rows is all there is.
            None => place.row as i64,
            Some(time) => seconds(&row[time]).ok_or_else(|| {
                let reason = format!("{:?} is not a number of seconds", &row[time]);
                place.fault(Some("timestamp"), reason)
            })?,
        };
        if let Some((rating, least)) = rating {
            let value = finite(&row[rating]).ok_or_else(|| {
                place.fault(Some("rating"), format!("{:?} is no number", &row[rating]))
            })?;
            if value < least {
                return Ok(());
            }
        }
        let id = row[item].trim();
        if !items_are_known && found.item(id).is_none() {
            let new = FoundItem {
                id: id.to_string(),
                text: String::new(),
                picture: own_picture(images, id),
                attributes: Vec::new(),
            };
            found.add_item(new, place)?;
        }
        found.add_interaction(&row[user], &row[item], timestamp, place)
    })
}
