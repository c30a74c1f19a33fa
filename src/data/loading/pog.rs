//! POG (Alibaba iFashion): `item_data.txt`, `user_data.txt` and `outfit_data.txt`.
//!
//! The published layout has no header lines: `item_id,cate_id,pic_url,title`, `user_id,item;item;…,outfit_id` and
//! `outfit_id,item;item;…`. A user has a line for every outfit clicked, with the items clicked before it. There are no
//! times: an item's place in its user's lines stands for one. The files are read line by line, since they hold millions
//! of users and items; users are drawn first, and only their items are kept.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::LoadOptions;
use super::addresses;
use super::assembling::{Assembly, LoadReport};
use super::error::{LoadError, Place};
use super::gathering::{FoundItem, Gathering, Picture};
use super::text_file::Lines;

/// What to load.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PogOptions {
    /// The folder with the three files.
    pub source: PathBuf,
    /// Users drawn, among those who have a line with enough items for a history; 0 takes all users.
    pub num_users: usize,
    /// Newest items of a user that are kept; 0 keeps all.
    pub items_per_user: usize,
    /// Whether the items of a clicked outfit count as clicked after the line's own.
    pub outfits: bool,
    pub load: LoadOptions,
}

impl Default for PogOptions {
    fn default() -> Self {
        let mut load = LoadOptions::default();
        // The catalogue is what the drawn users met: nobody ranks the other millions.
        load.selection.min_item = 1;
        Self {
            source: PathBuf::new(),
            num_users: 1_000,
            items_per_user: load.selection.history_length + 1,
            outfits: false,
            load,
        }
    }
}

/// Writes the folder `output`.
///
/// # Errors
/// The first fault with its file and row; an output that is not ours to replace.
pub fn load(options: &PogOptions, output: &Path) -> Result<LoadReport, LoadError> {
    Assembly {
        loader: "pog",
        sources: &[&options.source],
        output,
        options,
        selection: &options.load.selection,
    }
    .run(|| gather(options))
}

/// A user's items, oldest first, each once, with the row that named it.
type Sequence = Vec<(String, usize)>;

fn gather(options: &PogOptions) -> Result<Gathering, LoadError> {
    let mut found = Gathering::new(options.load.skip_bad, &["category"]);
    let users_file = options.source.join("user_data.txt");
    let drawn = match options.num_users {
        0 => None,
        count => Some(draw(&users_file, count, options, &mut found)?),
    };
    let mut users = sequences(&users_file, drawn.as_ref(), options, &mut found)?;
    for (_, sequence) in &mut users {
        if options.items_per_user > 0 && sequence.len() > options.items_per_user {
            sequence.drain(..sequence.len() - options.items_per_user);
        }
    }
    let wanted: HashSet<&str> = users
        .iter()
        .flat_map(|(_, sequence)| sequence.iter().map(|(item, _)| item.as_str()))
        .collect();
    add_items(&wanted, options, &mut found)?;
    for (user, sequence) in &users {
        for (time, (item, row)) in sequence.iter().enumerate() {
            let place = Place {
                path: &users_file,
                row: *row,
            };
            found.add_interaction(user, item, time as i64, place)?;
        }
    }
    Ok(found)
}

/// Each line that can be read goes to `each`; what that returns as an error is a fault of the line.
fn for_lines(
    path: &Path,
    options: &PogOptions,
    found: &mut Gathering,
    count_faults: bool,
    mut each: impl FnMut(&mut Gathering, &str, Place<'_>) -> Result<(), LoadError>,
) -> Result<(), LoadError> {
    let mut lines = Lines::open(path, options.load.encoding)?;
    loop {
        let fault = match lines.read() {
            Ok(None) => return Ok(()),
            Ok(Some((row, line))) => each(found, line, Place { path, row }).err(),
            Err(error) => Some(error),
        };
        match fault {
            // The second reading of a file meets the same faults again.
            Some(LoadError::Row { .. }) if !count_faults => {}
            Some(error) => found.faults.meet(error)?,
            None => {}
        }
    }
}

struct UserLine<'a> {
    user: &'a str,
    items: Vec<&'a str>,
    outfit: &'a str,
}

fn user_line<'a>(line: &'a str, place: Place<'_>) -> Result<UserLine<'a>, LoadError> {
    let fields: Vec<&str> = line.split(',').map(str::trim).collect();
    let [user, items, outfit] = fields[..] else {
        let reason = format!(
            "{} fields, expected 3: user_id,item;item;…,outfit_id",
            fields.len()
        );
        return Err(place.fault(None, reason));
    };
    if user.is_empty() {
        return Err(place.fault(None, "the user has no name"));
    }
    Ok(UserLine {
        user,
        items: items_of(items),
        outfit,
    })
}

fn items_of(list: &str) -> Vec<&str> {
    let items = list.split(';').map(str::trim);
    items.filter(|item| !item.is_empty()).collect()
}

/// Draws users by a hash of their names: one pass, little memory, and the order of the lines does not matter.
fn draw(
    path: &Path,
    count: usize,
    options: &PogOptions,
    found: &mut Gathering,
) -> Result<HashSet<String>, LoadError> {
    let needed = options.load.selection.history_length + 1;
    let mut lowest: BTreeSet<(u64, String)> = BTreeSet::new();
    for_lines(path, options, found, true, |_, line, place| {
        let line = user_line(line, place)?;
        let rank = rank(line.user, options.load.selection.seed);
        let is_full = lowest.len() == count;
        if is_full && lowest.last().is_some_and(|(highest, _)| *highest < rank) {
            return Ok(());
        }
        let different: HashSet<&str> = line.items.iter().copied().collect();
        if different.len() >= needed {
            lowest.insert((rank, line.user.to_string()));
            if lowest.len() > count {
                lowest.pop_last();
            }
        }
        Ok(())
    })?;
    if lowest.is_empty() {
        return Err(LoadError::Nothing {
            reason: format!(
                "a history of {} items and a reference take {needed} items, and no line of {} holds as many \
                 different ones; choose a smaller --history, or --users 0 to join each user's lines first",
                options.load.selection.history_length,
                path.display()
            ),
        });
    }
    Ok(lowest.into_iter().map(|(_, user)| user).collect())
}

fn rank(user: &str, seed: u64) -> u64 {
    let mut hash = Sha256::new();
    hash.update(seed.to_le_bytes());
    hash.update(user.as_bytes());
    let digest = hash.finalize();
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    u64::from_le_bytes(first)
}

/// Users with their joined lines, in the order in which they first appear.
fn sequences(
    path: &Path,
    drawn: Option<&HashSet<String>>,
    options: &PogOptions,
    found: &mut Gathering,
) -> Result<Vec<(String, Sequence)>, LoadError> {
    let mut lines: Vec<(String, Vec<String>, String, usize)> = Vec::new();
    for_lines(path, options, found, drawn.is_none(), |_, line, place| {
        let line = user_line(line, place)?;
        if drawn.is_none_or(|drawn| drawn.contains(line.user)) {
            let items = line.items.iter().map(ToString::to_string).collect();
            lines.push((line.user.into(), items, line.outfit.into(), place.row));
        }
        Ok(())
    })?;
    let outfits = if options.outfits {
        let wanted = lines
            .iter()
            .map(|(_, _, outfit, _)| outfit.as_str())
            .collect();
        outfits(&wanted, options, found)?
    } else {
        HashMap::new()
    };
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut users: Vec<(String, Sequence)> = Vec::new();
    let mut seen: HashSet<(usize, String)> = HashSet::new();
    for (user, items, outfit, row) in lines {
        if options.outfits && !outfit.is_empty() && !outfits.contains_key(&outfit) {
            let reason = format!("outfit {outfit:?} is not in outfit_data.txt");
            found.faults.meet(Place { path, row }.fault(None, reason))?;
        }
        let place = *places.entry(user.clone()).or_insert_with(|| {
            users.push((user, Vec::new()));
            users.len() - 1
        });
        let worn = outfits.get(&outfit).into_iter().flatten().cloned();
        for item in items.into_iter().chain(worn) {
            if seen.insert((place, item.clone())) {
                users[place].1.push((item, row));
            }
        }
    }
    Ok(users)
}

fn outfits(
    wanted: &HashSet<&str>,
    options: &PogOptions,
    found: &mut Gathering,
) -> Result<HashMap<String, Vec<String>>, LoadError> {
    let path = options.source.join("outfit_data.txt");
    let mut outfits = HashMap::new();
    for_lines(&path, options, found, true, |_, line, place| {
        let Some((outfit, items)) = line.split_once(',') else {
            return Err(place.fault(None, "1 field, expected 2: outfit_id,item;item;…"));
        };
        let outfit = outfit.trim();
        if wanted.contains(outfit) {
            let items = items_of(items).into_iter().map(str::to_string).collect();
            outfits.insert(outfit.to_string(), items);
        }
        Ok(())
    })?;
    Ok(outfits)
}

fn add_items(
    wanted: &HashSet<&str>,
    options: &PogOptions,
    found: &mut Gathering,
) -> Result<(), LoadError> {
    let path = options.source.join("item_data.txt");
    for_lines(&path, options, found, true, |found, line, place| {
        // A title may hold commas.
        let fields: Vec<&str> = line.splitn(4, ',').collect();
        let [id, category, picture, title] = fields[..] else {
            let reason = format!(
                "{} fields, expected 4: item_id,cate_id,pic_url,title",
                fields.len()
            );
            return Err(place.fault(None, reason));
        };
        if !wanted.contains(id.trim()) {
            return Ok(());
        }
        let picture = match addresses::complete(picture) {
            Ok(Some(url)) => Picture::Url(url),
            Ok(None) => Picture::None,
            Err(reason) => return Err(place.fault(Some("pic_url"), reason)),
        };
        let item = FoundItem {
            id: id.to_string(),
            text: title.to_string(),
            picture,
            attributes: vec![category.trim().to_string()],
        };
        found.add_item(item, place)
    })
}
