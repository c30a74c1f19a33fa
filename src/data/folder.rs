//! The folder format: `items.csv`, `interactions.csv`, `histories.jsonl`, `images/`.
//!
//! Everyone's own data comes in this form, the shipped stickers too; `docs/data.md` documents it. Reading looks at the
//! tables only; pictures are opened when they are needed, or by [`super::check`].

use std::collections::{BTreeSet, HashMap};
use std::path::{Component, Path, PathBuf};

use thiserror::Error;

use super::finding::{Finding, Problem, Severity};
use super::history::{History, HistoryLine, Interaction};
use super::item::{Catalogue, Item};
use super::table::{read_file, read_rows};

pub const ITEMS_FILE: &str = "items.csv";
pub const INTERACTIONS_FILE: &str = "interactions.csv";
pub const HISTORIES_FILE: &str = "histories.jsonl";

/// A folder that cannot be used.
#[derive(Debug, Error)]
pub enum DataError {
    #[error("{root}: no such folder", root = root.display())]
    NoFolder { root: PathBuf },
    #[error(
        "{root}: {first}{more}",
        root = root.display(),
        more = if *num_more == 0 { String::new() } else {
            format!(" ({num_more} more; `ragar data check {}` lists all)", root.display())
        }
    )]
    Invalid {
        root: PathBuf,
        first: Box<Finding>,
        num_more: usize,
    },
    #[error(
        "{path}, row {row}: the history of user {user:?} holds {found} items, expected {expected}{more}; \
         change the history, or the configured length",
        path = path.display(),
        more = if *num_more == 0 { String::new() } else { format!(" ({num_more} more users)") }
    )]
    HistoryLength {
        path: PathBuf,
        row: usize,
        user: String,
        found: usize,
        expected: usize,
        num_more: usize,
    },
    #[error(
        "{path}: user {user:?} has no history here{near}",
        path = path.display(),
        near = nearest.as_ref().map(|name| format!("; did you mean {name:?}?")).unwrap_or_default()
    )]
    UnknownUser {
        path: PathBuf,
        user: String,
        nearest: Option<String>,
    },
}

/// A data folder, read.
#[derive(Debug, Clone)]
pub struct DataFolder {
    pub root: PathBuf,
    pub catalogue: Catalogue,
    /// In the file's order.
    pub interactions: Vec<Interaction>,
    /// In the file's order.
    pub histories: Vec<History>,
    /// The row of `items.csv` each item came from.
    pub(super) item_rows: Vec<usize>,
    /// The row of `histories.jsonl` each history came from.
    pub(super) history_rows: Vec<usize>,
}

impl DataFolder {
    /// Reads the tables of `root`; anything wrong is an error (warnings are not).
    ///
    /// # Errors
    /// The first fault with its file, row and column, and how many more there are.
    pub fn open(root: impl AsRef<Path>) -> Result<Self, DataError> {
        let root = root.as_ref();
        let (folder, findings) = read(root)?;
        first_error(root, findings).map_or(Ok(folder), Err)
    }

    /// Reads what can be used of `root` and returns what was left out: rows that cannot be read, second rows of the
    /// same item, interactions with unknown items; unknown items are dropped from histories, and a history without
    /// items or reference is dropped whole.
    ///
    /// # Errors
    /// A missing file or column, or nothing usable at all.
    pub fn open_skipping_bad(root: impl AsRef<Path>) -> Result<(Self, Vec<Finding>), DataError> {
        let root = root.as_ref();
        let (folder, findings) = read(root)?;
        let fatal = findings.iter().filter(|finding| finding.row.is_none());
        if let Some(error) = first_error(root, fatal.cloned().collect()) {
            return Err(error);
        }
        if folder.catalogue.is_empty()
            && let Some(error) = first_error(root, findings.clone())
        {
            return Err(error);
        }
        Ok((folder, findings))
    }

    /// The folder without `items`: their interactions go, they leave the histories, and a history whose items or whose
    /// reference are gone goes whole. A target that is gone is no longer known.
    pub fn without(&self, items: &BTreeSet<usize>) -> Self {
        let mut places = vec![None; self.catalogue.len()];
        let mut kept = Vec::new();
        let mut item_rows = Vec::new();
        for (old, item) in self.catalogue.iter().enumerate() {
            if !items.contains(&old) {
                places[old] = Some(kept.len());
                kept.push(item.clone());
                item_rows.push(self.item_rows[old]);
            }
        }
        let interactions = self.interactions.iter().filter_map(|interaction| {
            Some(Interaction {
                item: places[interaction.item]?,
                ..interaction.clone()
            })
        });
        let lines = self.histories.iter().zip(&self.history_rows);
        let (histories, history_rows) = lines
            .filter_map(|(line, &row)| {
                let history: Vec<usize> = line.history.iter().filter_map(|&i| places[i]).collect();
                let reference = places[line.reference]?;
                let target = line.target.and_then(|target| places[target]);
                let left = History {
                    history,
                    reference,
                    target,
                    ..line.clone()
                };
                (!left.history.is_empty()).then_some((left, row))
            })
            .unzip();
        Self {
            root: self.root.clone(),
            interactions: interactions.collect(),
            histories,
            // Ids were distinct before.
            catalogue: Catalogue::new(kept).unwrap_or_default(),
            item_rows,
            history_rows,
        }
    }

    /// The first history of `user`.
    ///
    /// # Errors
    /// [`DataError::UnknownUser`] with the nearest name there is.
    pub fn history_of(&self, user: &str) -> Result<&History, DataError> {
        self.histories
            .iter()
            .find(|history| history.user == user)
            .ok_or_else(|| DataError::UnknownUser {
                path: self.root.join(HISTORIES_FILE),
                user: user.to_string(),
                nearest: self
                    .histories
                    .iter()
                    .map(|history| (strsim::jaro_winkler(user, &history.user), &history.user))
                    .filter(|(similarity, _)| *similarity > 0.8)
                    .max_by(|a, b| a.0.total_cmp(&b.0))
                    .map(|(_, name)| name.clone()),
            })
    }

    /// Holds every history against the configured length.
    ///
    /// # Errors
    /// [`DataError::HistoryLength`] with the first user that differs and how many more do.
    pub fn require_history_length(&self, expected: usize) -> Result<(), DataError> {
        let mut off = self
            .histories
            .iter()
            .zip(&self.history_rows)
            .filter(|(history, _)| history.history.len() != expected);
        match off.next() {
            None => Ok(()),
            Some((history, &row)) => Err(DataError::HistoryLength {
                path: self.root.join(HISTORIES_FILE),
                row,
                user: history.user.clone(),
                found: history.history.len(),
                expected,
                num_more: off.count(),
            }),
        }
    }
}

pub(super) fn first_error(root: &Path, findings: Vec<Finding>) -> Option<DataError> {
    let mut errors = findings
        .into_iter()
        .filter(|finding| finding.severity == Severity::Error);
    let first = errors.next()?;
    Some(DataError::Invalid {
        root: root.to_path_buf(),
        first: Box::new(first),
        num_more: errors.count(),
    })
}

/// Reads what is readable and reports the rest.
pub(super) fn read(root: &Path) -> Result<(DataFolder, Vec<Finding>), DataError> {
    if !root.is_dir() {
        return Err(DataError::NoFolder {
            root: root.to_path_buf(),
        });
    }
    let mut findings = Vec::new();
    let (catalogue, item_rows) = read_items(root, &mut findings);
    let interactions = read_interactions(root, &catalogue, &mut findings);
    let (histories, history_rows) = read_histories(root, &catalogue, &mut findings);
    let folder = DataFolder {
        root: root.to_path_buf(),
        catalogue,
        interactions,
        histories,
        item_rows,
        history_rows,
    };
    Ok((folder, findings))
}

fn read_items(root: &Path, findings: &mut Vec<Finding>) -> (Catalogue, Vec<usize>) {
    let mut items = Vec::new();
    let mut rows = Vec::new();
    let mut first_rows: HashMap<String, usize> = HashMap::new();
    read_rows(
        root,
        ITEMS_FILE,
        ["item_id", "image", "text"],
        findings,
        |row, [id, image, text], findings| {
            let mut report = |problem: Problem, column| {
                findings.push(problem.at(ITEMS_FILE, row, Some(column)));
            };
            if id.is_empty() {
                return report(Problem::EmptyField, "item_id");
            }
            if let Some(&first_row) = first_rows.get(id) {
                let id = id.to_string();
                return report(Problem::DuplicateId { id, first_row }, "item_id");
            }
            if let Err(problem) = inside(image) {
                return report(problem, "image");
            }
            if text.trim().is_empty() {
                report(Problem::EmptyText, "text");
            }
            first_rows.insert(id.to_string(), row);
            items.push(Item {
                id: id.to_string(),
                image: root.join(image),
                text: text.to_string(),
            });
            rows.push(row);
        },
    );
    // Ids are distinct by now.
    (Catalogue::new(items).unwrap_or_default(), rows)
}

/// A picture's path must stay inside the folder whatever it says.
pub(super) fn inside(path: &str) -> Result<(), Problem> {
    let refuse = |reason: &str| {
        Err(Problem::OutsidePath {
            path: path.to_string(),
            reason: reason.to_string(),
        })
    };
    if path.is_empty() {
        return Err(Problem::EmptyField);
    }
    if path.contains('\\') {
        return refuse("a backslash; separate folders with /");
    }
    // A drive letter is no root on this system, and would be one elsewhere.
    let drive = path.as_bytes().get(1) == Some(&b':');
    for component in Path::new(path).components() {
        match component {
            Component::Normal(_) | Component::CurDir => {}
            Component::ParentDir => return refuse("it holds `..`"),
            Component::RootDir | Component::Prefix(_) => return refuse("it is absolute"),
        }
    }
    if drive {
        return refuse("it is absolute");
    }
    Ok(())
}

fn read_interactions(
    root: &Path,
    catalogue: &Catalogue,
    findings: &mut Vec<Finding>,
) -> Vec<Interaction> {
    let mut interactions = Vec::new();
    read_rows(
        root,
        INTERACTIONS_FILE,
        ["user_id", "item_id", "timestamp"],
        findings,
        |row, [user, id, timestamp], findings| {
            let mut report = |problem: Problem, column| {
                findings.push(problem.at(INTERACTIONS_FILE, row, Some(column)));
            };
            if user.is_empty() {
                return report(Problem::EmptyField, "user_id");
            }
            let Some(item) = catalogue.position(id) else {
                return report(Problem::UnknownItem { id: id.to_string() }, "item_id");
            };
            let Some(timestamp) = seconds(timestamp) else {
                let found = timestamp.to_string();
                return report(Problem::BadTimestamp { found }, "timestamp");
            };
            interactions.push(Interaction {
                user: user.to_string(),
                item,
                timestamp,
            });
        },
    );
    interactions
}

/// Whole seconds; fractions, as some exports write them, are cut.
pub(super) fn seconds(text: &str) -> Option<i64> {
    let text = text.trim();
    text.parse::<i64>().ok().or_else(|| {
        let number: f64 = text.parse().ok()?;
        // Larger numbers have no exact seconds left.
        (number.is_finite() && number.abs() < 9.0e15).then_some(number.floor() as i64)
    })
}

fn read_histories(
    root: &Path,
    catalogue: &Catalogue,
    findings: &mut Vec<Finding>,
) -> (Vec<History>, Vec<usize>) {
    let (mut histories, mut rows) = (Vec::new(), Vec::new());
    let Some(bytes) = read_file(root, HISTORIES_FILE, findings) else {
        return (histories, rows);
    };
    let mut num_lines = 0;
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        num_lines += 1;
        let row = index + 1;
        match serde_json::from_slice::<HistoryLine>(line) {
            Ok(line) => {
                if let Some(history) = resolve(line, row, catalogue, findings) {
                    histories.push(history);
                    rows.push(row);
                }
            }
            Err(error) => {
                // serde_json counts lines of the slice, which is one line.
                let reason = error.to_string().replace("at line 1 column", "at column");
                findings.push(Problem::BadJson { reason }.at(HISTORIES_FILE, row, None));
            }
        }
    }
    if num_lines == 0 {
        findings.push(Problem::NoRows.of(HISTORIES_FILE, None));
    }
    (histories, rows)
}

/// Ids to positions. Unknown items leave a history; without reference or items there is none.
fn resolve(
    line: HistoryLine,
    row: usize,
    catalogue: &Catalogue,
    findings: &mut Vec<Finding>,
) -> Option<History> {
    let mut report = |problem: Problem, key: &str| {
        findings.push(problem.at(HISTORIES_FILE, row, Some(key)));
    };
    if line.user.is_empty() {
        report(Problem::EmptyField, "user");
        return None;
    }
    let mut find = |id: &str, key: &str| {
        let position = catalogue.position(id);
        if position.is_none() {
            report(Problem::UnknownItem { id: id.to_string() }, key);
        }
        position
    };
    let was_empty = line.history.is_empty();
    let history: Vec<usize> = line
        .history
        .iter()
        .filter_map(|id| find(id, "history"))
        .collect();
    let reference = find(&line.reference, "reference");
    let target = match &line.target {
        None => Some(None),
        Some(id) => find(id, "target").map(Some),
    };
    if was_empty {
        let user = line.user.clone();
        report(Problem::EmptyHistory { user }, "history");
    }
    if history.is_empty() {
        return None;
    }
    let (reference, target) = (reference?, target?);
    let user = line.user;
    if history.contains(&reference) {
        let (user, id) = (user.clone(), line.reference);
        report(Problem::ReferenceInHistory { user, id }, "reference");
    }
    if let (Some(position), Some(id)) = (target, line.target)
        && history.contains(&position)
    {
        let user = user.clone();
        report(Problem::TargetInHistory { user, id }, "target");
    }
    Some(History {
        user,
        history,
        reference,
        target,
        split: line.split,
    })
}
