//! Anyone's own tables: comma- or tab-separated, JSON lines, or (feature `parquet`) Parquet.

use std::path::{Path, PathBuf};

use csv::StringRecord;
use serde::{Deserialize, Serialize};

use super::LoadOptions;
use super::addresses;
use super::assembling::{Assembly, LoadReport};
use super::error::{LoadError, Place};
use super::gathering::{FoundItem, Gathering, Picture};
use super::movielens::finite;
use super::picture_folder::{PictureFolder, inside};
use super::rows::{Columns, Delimited, Dialect, Rows};

pub mod json_lines;
#[cfg(feature = "parquet")]
pub mod parquet;
pub mod time;

/// What to load. Columns that are not named are guessed from the usual names.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TableOptions {
    /// Who met what.
    pub interactions: PathBuf,
    /// What there is; None: the interactions' own columns are read for it.
    pub items: Option<PathBuf>,
    /// The folder of the pictures; None: the items' own.
    pub images: Option<PathBuf>,
    /// Between the fields of a text table; None: by the file's ending.
    pub delimiter: Option<char>,
    pub user: Option<String>,
    pub item: Option<String>,
    /// The item's column in `items`, where it is called otherwise there.
    pub item_key: Option<String>,
    pub time: Option<String>,
    pub rating: Option<String>,
    pub min_rating: Option<f64>,
    /// Columns that make the text, joined by commas.
    pub text: Vec<String>,
    /// Column with a picture's file or address.
    pub image: Option<String>,
    pub load: LoadOptions,
}

const USERS: [&str; 12] = [
    "userid",
    "user",
    "uid",
    "customerid",
    "customer",
    "reviewerid",
    "visitorid",
    "sessionid",
    "memberid",
    "clientid",
    "buyerid",
    "username",
];
const ITEMS: [&str; 14] = [
    "itemid",
    "item",
    "iid",
    "productid",
    "product",
    "movieid",
    "articleid",
    "asin",
    "parentasin",
    "bookid",
    "sku",
    "trackid",
    "songid",
    "id",
];
const TIMES: [&str; 10] = [
    "timestamp",
    "time",
    "datetime",
    "unixreviewtime",
    "date",
    "tdat",
    "ts",
    "createdat",
    "eventtime",
    "unixtime",
];
const RATINGS: [&str; 5] = ["rating", "score", "stars", "overall", "label"];
const TEXTS: [&str; 9] = [
    "text",
    "title",
    "name",
    "productname",
    "prodname",
    "producttitle",
    "caption",
    "description",
    "detaildesc",
];
const PICTURES: [&str; 14] = [
    "image",
    "imageurl",
    "imgurl",
    "imurl",
    "picture",
    "pictureurl",
    "picurl",
    "poster",
    "posterurl",
    "img",
    "pic",
    "imagepath",
    "photo",
    "url",
];

/// Writes the folder `output`.
///
/// # Errors
/// The first fault with its file and row; a column that cannot be found; an output that is not ours to replace.
pub fn load(options: &TableOptions, output: &Path) -> Result<LoadReport, LoadError> {
    let mut sources = vec![options.interactions.as_path()];
    sources.extend(options.items.as_deref());
    sources.extend(options.images.as_deref());
    Assembly {
        loader: "table",
        sources: &sources,
        output,
        options,
        selection: &options.load.selection,
    }
    .run(|| gather(options))
}

/// Opens a table by the ending of its name.
fn open(path: &Path, options: &TableOptions) -> Result<Box<dyn Rows>, LoadError> {
    let ending = path.extension().and_then(|ending| ending.to_str());
    let ending = ending.unwrap_or_default().to_lowercase();
    let delimited = |usual: u8| -> Result<Box<dyn Rows>, LoadError> {
        let delimiter = match options.delimiter {
            None => usual,
            Some(letter) => u8::try_from(letter)
                .ok()
                .filter(|byte| byte.is_ascii() && !b"\"\r\n".contains(byte))
                .ok_or_else(|| LoadError::Option {
                    option: "--delimiter",
                    found: format!("{letter:?}"),
                    expected: "one ASCII character".into(),
                })?,
        };
        let dialect = Dialect {
            delimiter,
            ..Dialect::comma(options.load.encoding)
        };
        Ok(Box::new(Delimited::open(path, dialect)?))
    };
    match ending.as_str() {
        "csv" | "txt" => delimited(b','),
        "tsv" | "tab" => delimited(b'\t'),
        "jsonl" | "ndjson" | "jsonlines" => Ok(Box::new(json_lines::JsonLines::open(path)?)),
        "parquet" | "pq" => parquet_rows(path),
        _ if options.delimiter.is_some() => delimited(b','),
        _ => Err(LoadError::file(
            path,
            "an unknown kind of table; expected .csv, .tsv, .jsonl or .parquet, or --delimiter for any other text",
        )),
    }
}

#[cfg(feature = "parquet")]
fn parquet_rows(path: &Path) -> Result<Box<dyn Rows>, LoadError> {
    Ok(Box::new(parquet::ParquetRows::open(path)?))
}

#[cfg(not(feature = "parquet"))]
fn parquet_rows(path: &Path) -> Result<Box<dyn Rows>, LoadError> {
    Err(LoadError::file(
        path,
        "this program was built without Parquet; build it with --features parquet, or save the table as CSV",
    ))
}

fn gather(options: &TableOptions) -> Result<Gathering, LoadError> {
    let mut found = Gathering::new(options.load.skip_bad, &[]);
    if let Some(items) = &options.items {
        let key = options.item_key.as_deref().or(options.item.as_deref());
        let rows = open(items, options)?;
        let reader = ItemColumns::find(&*rows, key, items, options)?;
        for_rows(rows, &mut found, |found, row, place| {
            let item = reader.item(row, place)?;
            found.add_item(item, place)
        })?;
    }
    add_interactions(options, &mut found)?;
    Ok(found)
}

fn for_rows(
    mut rows: Box<dyn Rows>,
    found: &mut Gathering,
    mut each: impl FnMut(&mut Gathering, &StringRecord, Place<'_>) -> Result<(), LoadError>,
) -> Result<(), LoadError> {
    let path = rows.path().to_path_buf();
    let mut row = StringRecord::new();
    loop {
        let result = match rows.read(&mut row) {
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

/// Where a table says what an item is.
struct ItemColumns {
    id: usize,
    text: Vec<usize>,
    picture: Option<usize>,
    /// Pictures named by item, where no column names them.
    by_name: Option<PictureFolder>,
    root: PathBuf,
}

impl ItemColumns {
    fn find(
        rows: &dyn Rows,
        key: Option<&str>,
        path: &Path,
        options: &TableOptions,
    ) -> Result<Self, LoadError> {
        let columns = Columns::of(rows);
        let id = columns.require(key, &ITEMS, "item", "--item (or --item-key)")?;
        let text = if options.text.is_empty() {
            let guess = columns.find(None, &TEXTS, "text", "--text")?;
            guess.into_iter().filter(|place| *place != id).collect()
        } else {
            let named = options.text.iter();
            named
                .map(|name| columns.require(Some(name), &[], "text", "--text"))
                .collect::<Result<_, _>>()?
        };
        let picture = columns.find(options.image.as_deref(), &PICTURES, "picture", "--image")?;
        let root = match &options.images {
            Some(folder) => folder.clone(),
            None => path.parent().unwrap_or(Path::new("")).to_path_buf(),
        };
        let by_name = match (&options.images, picture) {
            (Some(folder), None) => Some(PictureFolder::open(folder)?),
            _ => None,
        };
        Ok(Self {
            id,
            text,
            picture,
            by_name,
            // An empty path is the current folder, for people and not for the system.
            root: if root.as_os_str().is_empty() {
                PathBuf::from(".")
            } else {
                root
            },
        })
    }

    fn item(&self, row: &StringRecord, place: Place<'_>) -> Result<FoundItem, LoadError> {
        let words: Vec<&str> = self
            .text
            .iter()
            .map(|&column| row[column].trim())
            .filter(|words| !words.is_empty())
            .collect();
        let id = row[self.id].trim();
        let picture = match (self.picture, &self.by_name) {
            (Some(column), _) => {
                let value = row[column].trim();
                let refused = |reason| place.fault(Some("picture"), reason);
                if addresses::is_nothing(value) {
                    Picture::None
                } else if addresses::is_address(value) {
                    addresses::complete(value)
                        .map_err(refused)?
                        .map_or(Picture::None, Picture::Url)
                } else {
                    inside(&self.root, value)
                        .map_err(refused)?
                        .map_or(Picture::None, Picture::File)
                }
            }
            (None, Some(folder)) => folder
                .named(id)
                .map_or(Picture::None, |path| Picture::File(path.to_path_buf())),
            (None, None) => Picture::None,
        };
        Ok(FoundItem {
            id: id.to_string(),
            text: words.join(", "),
            picture,
            attributes: Vec::new(),
        })
    }
}

fn add_interactions(options: &TableOptions, found: &mut Gathering) -> Result<(), LoadError> {
    let rows = open(&options.interactions, options)?;
    let columns = Columns::of(&*rows);
    let user = columns.require(options.user.as_deref(), &USERS, "user", "--user")?;
    let item = columns.require(options.item.as_deref(), &ITEMS, "item", "--item")?;
    let time = columns.find(options.time.as_deref(), &TIMES, "time", "--time")?;
    let rating = match options.min_rating {
        None => None,
        Some(least) => {
            let wanted = options.rating.as_deref();
            Some((
                columns.require(wanted, &RATINGS, "rating", "--rating")?,
                least,
            ))
        }
    };
    let own_items = match options.items {
        Some(_) => None,
        None => {
            let item = options.item.as_deref();
            Some(ItemColumns::find(
                &*rows,
                item,
                &options.interactions,
                options,
            )?)
        }
    };
    for_rows(rows, found, |found, row, place| {
        let timestamp = match time {
            // The order of the rows is all there is.
            None => place.row as i64,
            Some(column) => time::read(&row[column]).ok_or_else(|| {
                let reason = format!(
                    "{:?} is neither a number of seconds nor a date such as 2020-01-31 or 2020-01-31T12:30:00",
                    &row[column]
                );
                place.fault(Some("time"), reason)
            })?,
        };
        if let Some((column, least)) = rating {
            let value = finite(&row[column]).ok_or_else(|| {
                place.fault(Some("rating"), format!("{:?} is no number", &row[column]))
            })?;
            if value < least {
                return Ok(());
            }
        }
        if let Some(columns) = &own_items
            && found.item(&row[item]).is_none()
        {
            let new = columns.item(row, place)?;
            found.add_item(new, place)?;
        }
        found.add_interaction(&row[user], &row[item], timestamp, place)
    })
}
