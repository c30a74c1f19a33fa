//! What can be typed after `ragar data` to make a data folder of something else, and to bring its pictures.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::de::DeserializeOwned;
use serde::de::value::{Error as WordError, StrDeserializer};

use crate::data::loading::movielens::PosterName;
use crate::data::loading::{Encoding, HistoryChoice, WithoutPicture};

/// Loaders of published data sets and of anyone's tables.
#[derive(Debug, Subcommand)]
pub enum LoadCommand {
    /// Make a data folder of MovieLens latest or latest-small
    #[command(
        after_help = "Example:\n  ragar data movielens ml-latest-small --posters posters --out data/movielens --histories stretches"
    )]
    Movielens {
        /// The unpacked folder: ratings.csv, movies.csv, links.csv
        #[arg(value_name = "SOURCE")]
        source: PathBuf,
        /// Folder of posters named by imdbId (with or without tt), tmdbId or movieId
        #[arg(long, value_name = "DIR")]
        posters: Option<PathBuf>,
        /// What names the posters: imdb, tmdb or movie [default: what matches most]
        #[arg(long, value_name = "WORD", value_parser = word::<PosterName>)]
        posters_by: Option<PosterName>,
        /// Ratings below are left out
        #[arg(long, value_name = "RATING")]
        min_rating: Option<f64>,
        #[command(flatten)]
        common: CommonLoad,
    },
    /// Make a data folder of POG (Alibaba iFashion); its pictures are fetched afterwards
    #[command(
        after_help = "Example:\n  ragar data pog POG --out data/pog && ragar data pictures data/pog"
    )]
    Pog {
        /// The folder with item_data.txt, user_data.txt and, for --outfits, outfit_data.txt
        #[arg(value_name = "SOURCE")]
        source: PathBuf,
        /// Newest items of each user that are kept, 0 for all [default: history and reference]
        #[arg(long, value_name = "COUNT")]
        items_per_user: Option<usize>,
        /// Count the items of a clicked outfit as clicked
        #[arg(long)]
        outfits: bool,
        #[command(flatten)]
        common: CommonLoad,
    },
    /// Make a data folder of SER30K: two themes merged are a user's history, the reference is of a third
    #[command(after_help = "Example:\n  ragar data ser30k SER_Dataset --out data/ser30k")]
    Ser30k {
        /// The folder with Images and Annotations
        #[arg(value_name = "SOURCE")]
        source: PathBuf,
        /// Words for the emotion labels 1, 2, 3 …, separated by commas
        #[arg(long, value_name = "WORDS", value_delimiter = ',')]
        emotions: Vec<String>,
        #[command(flatten)]
        common: CommonLoad,
    },
    /// Make a data folder of RecBole's atomic files
    #[command(
        after_help = "Example:\n  ragar data recbole dataset/ml-100k --min-rating 4 --without-picture blank --out data/ml-100k"
    )]
    Recbole {
        /// The folder of the atomic files, or the .inter file
        #[arg(value_name = "SOURCE")]
        source: PathBuf,
        /// Folder of pictures named by item
        #[arg(long, value_name = "DIR")]
        images: Option<PathBuf>,
        /// Field of .item with a picture's address
        #[arg(long, value_name = "FIELD")]
        url: Option<String>,
        #[command(flatten)]
        columns: ColumnNames,
        #[command(flatten)]
        common: CommonLoad,
    },
    /// Make a data folder of your own tables: CSV, TSV, JSON lines or Parquet
    #[command(
        after_help = "Examples:\n  ragar data table clicks.csv --items products.jsonl --images photos --out data/shop\n  \
            ragar data table orders.csv --items items.csv --user buyer --item sku --time day --text title,brand --image photo --out data/shop"
    )]
    Table {
        /// Who met what: .csv, .tsv, .jsonl or .parquet
        #[arg(value_name = "INTERACTIONS")]
        source: PathBuf,
        /// What there is [default: the same table]
        #[arg(long, value_name = "FILE")]
        items: Option<PathBuf>,
        /// Folder of pictures: named in a column, or else by item [default: where the items are]
        #[arg(long, value_name = "DIR")]
        images: Option<PathBuf>,
        /// Column of a picture's file or address
        #[arg(long, value_name = "COLUMN")]
        image: Option<String>,
        /// The item's column in --items, where it is called otherwise there
        #[arg(long, value_name = "COLUMN")]
        item_key: Option<String>,
        /// Between the fields of a text table [default: by the file's ending]
        #[arg(long, value_name = "CHARACTER")]
        delimiter: Option<char>,
        #[command(flatten)]
        columns: ColumnNames,
        #[command(flatten)]
        common: CommonLoad,
    },
}

/// Names of columns, guessed where they are not given.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Columns")]
pub struct ColumnNames {
    /// Who
    #[arg(long, value_name = "COLUMN")]
    pub user: Option<String>,
    /// What
    #[arg(long, value_name = "COLUMN")]
    pub item: Option<String>,
    /// When; without one, the order of the rows counts
    #[arg(long, value_name = "COLUMN")]
    pub time: Option<String>,
    /// How much; only read for --min-rating
    #[arg(long, value_name = "COLUMN")]
    pub rating: Option<String>,
    /// What an item is called; several are joined
    #[arg(long, value_name = "COLUMNS", value_delimiter = ',')]
    pub text: Vec<String>,
    /// Ratings below are left out
    #[arg(long, value_name = "RATING")]
    pub min_rating: Option<f64>,
}

/// What every loader takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "What is kept")]
pub struct CommonLoad {
    /// The folder to write; an earlier output of the same command is replaced
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Items of a history, the reference not counted
    #[arg(long, value_name = "COUNT", default_value_t = 20)]
    pub history: usize,
    /// last: one history a user; stretches: one for each full stretch of a user's time line
    #[arg(long, value_name = "WORD", default_value = "last", value_parser = word::<HistoryChoice>)]
    pub histories: HistoryChoice,
    /// Users with fewer interactions leave
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    pub min_user: usize,
    /// Items with fewer interactions leave [default: 0; pog 1]
    #[arg(long, value_name = "COUNT")]
    pub min_item: Option<usize>,
    /// Users drawn by the seed, 0 for all; for ser30k, users invented [default: 0; pog 1000, ser30k 2230]
    #[arg(long, value_name = "COUNT")]
    pub users: Option<usize>,
    /// drop: leave items without a picture out; blank: give them a white one, for text alone
    #[arg(long, value_name = "WORD", default_value = "drop", value_parser = word::<WithoutPicture>)]
    pub without_picture: WithoutPicture,
    /// Of everything that is drawn
    #[arg(long, value_name = "NUMBER", default_value_t = 20_250_501)]
    pub seed: u64,
    /// utf-8 or latin-1
    #[arg(long, value_name = "WORD", default_value = "utf-8", value_parser = word::<Encoding>)]
    pub encoding: Encoding,
}

/// `ragar data pictures`.
#[derive(Debug, Clone, Args)]
pub struct PicturesArguments {
    /// A folder made by a loader, with addresses in items.csv
    pub dir: PathBuf,
    /// Pictures at once
    #[arg(long, value_name = "COUNT", default_value_t = 8)]
    pub parallel: usize,
    /// Requests a second to each host
    #[arg(long, value_name = "NUMBER", default_value_t = 8.0)]
    pub per_second: f64,
    /// Seconds for a connection, and for each piece of an answer
    #[arg(long, value_name = "SECONDS", default_value_t = 20)]
    pub timeout: u64,
    /// Times that a picture is tried again
    #[arg(long, value_name = "COUNT", default_value_t = 4)]
    pub retries: u32,
    /// Permit all addresses of private networks, and the environment's proxy
    #[arg(long)]
    pub allow_private: bool,
    /// Permit this address of a private network; may be given more than once
    #[arg(long, value_name = "ADDRESS")]
    pub allow_address: Vec<std::net::IpAddr>,
    /// Try again what failed for good before
    #[arg(long)]
    pub retry_failed: bool,
}

/// A word of a data type's own spelling.
fn word<T: DeserializeOwned>(text: &str) -> Result<T, WordError> {
    T::deserialize(StrDeserializer::<WordError>::new(text))
}
