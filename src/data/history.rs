//! Users: what they interacted with, and what is to be drawn for them.

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize};

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

/// One line of `histories.jsonl`: the same with item ids. Ids may be written as numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HistoryLine {
    #[serde(deserialize_with = "id")]
    pub user: String,
    #[serde(deserialize_with = "ids")]
    pub history: Vec<String>,
    #[serde(deserialize_with = "id")]
    pub reference: String,
    #[serde(
        default,
        deserialize_with = "optional_id",
        skip_serializing_if = "Option::is_none"
    )]
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

/// A string, or a whole number taken as its digits.
struct Id(String);

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct IdVisitor;
        impl Visitor<'_> for IdVisitor {
            type Value = Id;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an id: a string or a whole number")
            }

            fn visit_str<E: serde::de::Error>(self, id: &str) -> Result<Id, E> {
                Ok(Id(id.to_string()))
            }

            fn visit_u64<E: serde::de::Error>(self, id: u64) -> Result<Id, E> {
                Ok(Id(id.to_string()))
            }

            fn visit_i64<E: serde::de::Error>(self, id: i64) -> Result<Id, E> {
                Ok(Id(id.to_string()))
            }
        }
        deserializer.deserialize_any(IdVisitor)
    }
}

fn id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Id::deserialize(deserializer).map(|id| id.0)
}

fn ids<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let ids = Vec::<Id>::deserialize(deserializer)?;
    Ok(ids.into_iter().map(|id| id.0).collect())
}

fn optional_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<Id>::deserialize(deserializer)?.map(|id| id.0))
}
