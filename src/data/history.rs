//! Users: what they interacted with, and what is to be drawn for them.

use serde::{Deserialize, Serialize};

use super::item::Catalogue;

/// Which part of the users a history belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    Train,
    Validation,
    Test,
}

impl Split {
    pub const ALL: [Split; 3] = [Split::Train, Split::Validation, Split::Test];

    /// The word in `histories.jsonl`.
    pub fn name(self) -> &'static str {
        match self {
            Split::Train => "train",
            Split::Validation => "validation",
            Split::Test => "test",
        }
    }
}

/// One user: a history and a reference item to personalise. Items are positions in the [`Catalogue`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    pub user: String,
    /// Oldest first.
    pub history: Vec<usize>,
    pub reference: usize,
    /// The right answer, where it is known.
    pub target: Option<usize>,
    /// None where the file does not say.
    pub split: Option<Split>,
}

/// One user met one item; what the ranking model is trained on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interaction {
    pub user: String,
    /// Position in the [`Catalogue`].
    pub item: usize,
    /// Seconds since 1970, or any number that grows with time.
    pub timestamp: i64,
}

/// One line of `histories.jsonl`: the same with item ids.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HistoryLine {
    pub user: String,
    pub history: Vec<String>,
    pub reference: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<Split>,
}

impl HistoryLine {
    /// The line that says `history` in the catalogue's ids.
    pub fn from_history(history: &History, catalogue: &Catalogue) -> Self {
        let id = |item: usize| catalogue[item].id.clone();
        Self {
            user: history.user.clone(),
            history: history.history.iter().map(|&item| id(item)).collect(),
            reference: id(history.reference),
            target: history.target.map(id),
            split: history.split,
        }
    }
}
