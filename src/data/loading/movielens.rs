//! MovieLens `latest` and `latest-small`: `ratings.csv`, `movies.csv`, `links.csv`, and posters from a folder.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use csv::StringRecord;
use serde::{Deserialize, Serialize};

use super::LoadOptions;
use super::assembling::{Assembly, LoadReport};
use super::error::{LoadError, Place};
use super::gathering::{FoundItem, Gathering, Picture};
use super::picture_folder::PictureFolder;
use super::rows::{Columns, Delimited, Dialect, Rows as _};
use crate::data::folder::seconds;

/// Which number names a poster's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PosterName {
    /// `imdbId`, with or without `tt` and leading zeros.
    Imdb,
    /// `tmdbId`.
    Tmdb,
    /// `movieId`.
    Movie,
}

impl PosterName {
    const ALL: [PosterName; 3] = [PosterName::Imdb, PosterName::Tmdb, PosterName::Movie];

    fn word(self) -> &'static str {
        match self {
            Self::Imdb => "imdb",
            Self::Tmdb => "tmdb",
            Self::Movie => "movie",
        }
    }
}

/// What to load.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MovieLensOptions {
    /// The unpacked folder.
    pub source: PathBuf,
    pub posters: Option<PathBuf>,
    /// None: whichever matches most posters.
    pub posters_by: Option<PosterName>,
    /// Ratings below are no interactions; None keeps all.
    pub min_rating: Option<f64>,
    pub load: LoadOptions,
}

/// Writes the folder `output`.
///
/// # Errors
/// The first fault with its file and row; an output that is not ours to replace.
pub fn load(options: &MovieLensOptions, output: &Path) -> Result<LoadReport, LoadError> {
    let posters = options.posters.as_deref();
    let sources: Vec<&Path> = [options.source.as_path()]
        .into_iter()
        .chain(posters)
        .collect();
    Assembly {
        loader: "movielens",
        sources: &sources,
        output,
        options,
        selection: &options.load.selection,
    }
    .run(|| gather(options))
}

fn gather(options: &MovieLensOptions) -> Result<Gathering, LoadError> {
    let mut found = Gathering::new(options.load.skip_bad, &["genres"]);
    let posters = match &options.posters {
        Some(folder) => Posters::open(folder, options, &mut found)?,
        None => Posters::default(),
    };
    add_movies(options, &posters, &mut found)?;
    add_ratings(options, &mut found)?;
    Ok(found)
}

fn open(options: &MovieLensOptions, file: &str) -> Result<Delimited, LoadError> {
    let path = options.source.join(file);
    Delimited::open(&path, Dialect::comma(options.load.encoding))
}

fn add_movies(
    options: &MovieLensOptions,
    posters: &Posters,
    found: &mut Gathering,
) -> Result<(), LoadError> {
    let mut rows = open(options, "movies.csv")?;
    let columns = Columns::of(&rows);
    let id = columns.named("movieId")?;
    let title = columns.named("title")?;
    let genres = columns.named("genres")?;
    let path = rows.path().to_path_buf();
    let mut row = StringRecord::new();
    loop {
        let row_number = match rows.read(&mut row) {
            Ok(Some(number)) => number,
            Ok(None) => return Ok(()),
            Err(error) => {
                found.faults.meet(error)?;
                continue;
            }
        };
        let place = Place {
            path: &path,
            row: row_number,
        };
        let genres = words_of_genres(&row[genres]);
        let title = natural_title(&row[title]);
        let text = match (title.is_empty(), genres.is_empty()) {
            (_, true) => title,
            (true, _) => genres.clone(),
            _ => format!("{title}: {genres}"),
        };
        let item = FoundItem {
            id: row[id].to_string(),
            text,
            picture: posters.of(row[id].trim()),
            attributes: vec![genres],
        };
        found.add_item(item, place)?;
    }
}

/// `Matrix, The (1999)` is how lists are sorted, not how people write.
fn natural_title(title: &str) -> String {
    let title = title.trim();
    let (name, year) = match title.rfind(" (") {
        Some(at) if title.ends_with(')') => title.split_at(at),
        _ => (title, ""),
    };
    match name.rsplit_once(", ") {
        Some((rest, article @ ("The" | "A" | "An"))) => format!("{article} {rest}{year}"),
        _ => title.to_string(),
    }
}

fn words_of_genres(genres: &str) -> String {
    let genres = genres.split('|').map(str::trim);
    genres
        .filter(|genre| !genre.is_empty() && *genre != "(no genres listed)")
        .map(str::to_lowercase)
        .collect::<Vec<_>>()
        .join(", ")
}

fn add_ratings(options: &MovieLensOptions, found: &mut Gathering) -> Result<(), LoadError> {
    let mut rows = open(options, "ratings.csv")?;
    let columns = Columns::of(&rows);
    let user = columns.named("userId")?;
    let movie = columns.named("movieId")?;
    let rating = columns.named("rating")?;
    let time = columns.named("timestamp")?;
    let path = rows.path().to_path_buf();
    let mut row = StringRecord::new();
    loop {
        let row_number = match rows.read(&mut row) {
            Ok(Some(number)) => number,
            Ok(None) => return Ok(()),
            Err(error) => {
                found.faults.meet(error)?;
                continue;
            }
        };
        let place = Place {
            path: &path,
            row: row_number,
        };
        let Some(value) = finite(&row[rating]) else {
            let reason = format!("{:?} is no number", &row[rating]);
            found.faults.meet(place.fault(Some("rating"), reason))?;
            continue;
        };
        let Some(timestamp) = seconds(&row[time]) else {
            let reason = format!("{:?} is not a number of seconds", &row[time]);
            found.faults.meet(place.fault(Some("timestamp"), reason))?;
            continue;
        };
        if options.min_rating.is_none_or(|least| value >= least) {
            found.add_interaction(&row[user], &row[movie], timestamp, place)?;
        } else if found.item(&row[movie]).is_none() {
            // Too low to count, and still a sign that the files do not belong together.
            let reason = format!("movie {:?} is not in movies.csv", &row[movie]);
            found.faults.meet(place.fault(Some("movieId"), reason))?;
        }
    }
}

/// A number that is one.
pub(super) fn finite(text: &str) -> Option<f64> {
    text.trim()
        .parse::<f64>()
        .ok()
        .filter(|value| value.is_finite())
}

/// Posters by movie.
#[derive(Debug, Default)]
struct Posters {
    by_movie: HashMap<String, PathBuf>,
}

impl Posters {
    fn of(&self, movie: &str) -> Picture {
        match self.by_movie.get(movie) {
            Some(path) => Picture::File(path.clone()),
            None => Picture::None,
        }
    }

    /// Matches the files of `folder` with `links.csv`.
    fn open(
        folder: &Path,
        options: &MovieLensOptions,
        found: &mut Gathering,
    ) -> Result<Self, LoadError> {
        let files = PictureFolder::open(folder)?;
        if files.is_empty() {
            return Err(LoadError::file(folder, "the folder holds no pictures"));
        }
        // The number in a file's name; of `0114709.jpg` and `tt114709.png`, the same.
        let mut by_number: HashMap<u64, &str> = HashMap::new();
        let mut num_imdb = 0;
        let mut names: Vec<&str> = files.names().collect();
        names.sort_unstable();
        for name in names {
            let digits = name.strip_prefix("tt");
            num_imdb += usize::from(digits.is_some());
            if let Ok(number) = digits.unwrap_or(name).parse::<u64>() {
                by_number.entry(number).or_insert(name);
            }
        }
        let links = if options.posters_by == Some(PosterName::Movie) {
            Vec::new()
        } else {
            links(options, found)?
        };
        let numbers = |kind: PosterName| -> Vec<(String, u64)> {
            let of_link = |link: &Link| {
                let number = match kind {
                    PosterName::Imdb => link.imdb,
                    PosterName::Tmdb => link.tmdb,
                    PosterName::Movie => link.movie.parse().ok(),
                };
                Some((link.movie.clone(), number?))
            };
            links.iter().filter_map(of_link).collect()
        };
        let kind = match options.posters_by {
            Some(PosterName::Movie) => return Ok(Self::by_movie_id(&files)),
            Some(kind) => kind,
            // Only IMDb's numbers are written so.
            None if num_imdb > 0 => PosterName::Imdb,
            None => {
                let known: HashSet<u64> = by_number.keys().copied().collect();
                let counts = PosterName::ALL.map(|kind| {
                    let numbers = numbers(kind);
                    let hits = numbers.iter().filter(|(_, number)| known.contains(number));
                    (hits.count(), kind)
                });
                clearest(counts, folder)?
            }
        };
        let by_movie = numbers(kind).into_iter().filter_map(|(movie, number)| {
            let name = by_number.get(&number)?;
            Some((movie, files.named(name)?.to_path_buf()))
        });
        Ok(Self {
            by_movie: by_movie.collect(),
        })
    }

    fn by_movie_id(files: &PictureFolder) -> Self {
        let numbered = files.names().filter_map(|name| {
            let number: u64 = name.parse().ok()?;
            Some((number.to_string(), files.named(name)?.to_path_buf()))
        });
        Self {
            by_movie: numbered.collect(),
        }
    }
}

/// The way of naming that matches most posters, if it is clearly the best: small numbers are films in every count.
fn clearest(mut counts: [(usize, PosterName); 3], folder: &Path) -> Result<PosterName, LoadError> {
    counts.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
    let [(most, kind), (next, other), _] = counts;
    if most == 0 {
        return Err(LoadError::file(
            folder,
            "no picture is named by an imdbId, tmdbId or movieId of links.csv",
        ));
    }
    // Four in five of the best: then it may be either.
    if next * 5 >= most * 4 {
        return Err(LoadError::Option {
            option: "--posters-by",
            found: format!(
                "{most} posters could be named by {} and {next} by {}",
                kind.word(),
                other.word()
            ),
            expected: "to be told which: imdb, tmdb or movie".into(),
        });
    }
    Ok(kind)
}

struct Link {
    movie: String,
    imdb: Option<u64>,
    tmdb: Option<u64>,
}

fn links(options: &MovieLensOptions, found: &mut Gathering) -> Result<Vec<Link>, LoadError> {
    let mut rows = open(options, "links.csv")?;
    let columns = Columns::of(&rows);
    let movie = columns.named("movieId")?;
    let imdb = columns.named("imdbId")?;
    let tmdb = columns.named("tmdbId")?;
    let path = rows.path().to_path_buf();
    let mut links = Vec::new();
    let mut row = StringRecord::new();
    loop {
        let row_number = match rows.read(&mut row) {
            Ok(Some(number)) => number,
            Ok(None) => return Ok(links),
            Err(error) => {
                found.faults.meet(error)?;
                continue;
            }
        };
        let place = Place {
            path: &path,
            row: row_number,
        };
        let mut number = |field: &str, column| -> Result<Option<u64>, LoadError> {
            let digits = field.trim().trim_start_matches("tt");
            if digits.is_empty() {
                return Ok(None);
            }
            match digits.parse() {
                Ok(number) => Ok(Some(number)),
                Err(_) => {
                    let reason = format!("{field:?} is no number");
                    found.faults.meet(place.fault(Some(column), reason))?;
                    Ok(None)
                }
            }
        };
        links.push(Link {
            imdb: number(&row[imdb], "imdbId")?,
            tmdb: number(&row[tmdb], "tmdbId")?,
            movie: row[movie].trim().to_string(),
        });
    }
}
