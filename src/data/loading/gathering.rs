//! What a loader found: items, who met them, and in some sets the histories.

use std::collections::HashMap;
use std::path::PathBuf;

use super::error::{Faults, LoadError, Place};
use crate::data::history::Split;

/// Where an item's picture comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Picture {
    /// Copied into the folder.
    File(PathBuf),
    /// Left to `ragar data pictures`.
    Url(String),
    None,
}

/// An item as a source gives it.
#[derive(Debug, Clone)]
pub struct FoundItem {
    pub id: String,
    pub text: String,
    pub picture: Picture,
    /// Values of [`Gathering::attributes`].
    pub attributes: Vec<String>,
}

/// Someone met something; numbers stand for names, since there may be tens of millions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoundInteraction {
    /// Position in [`Gathering::users`].
    pub user: u32,
    /// Position in [`Gathering::items`].
    pub item: u32,
    pub timestamp: i64,
}

/// A history that the source itself defines.
#[derive(Debug, Clone)]
pub struct FoundHistory {
    pub user: String,
    /// Positions in [`Gathering::items`].
    pub history: Vec<u32>,
    pub reference: u32,
    pub split: Option<Split>,
}

/// Everything that a loader hands to the common stage.
#[derive(Debug, Default)]
pub struct Gathering {
    pub items: Vec<FoundItem>,
    pub users: Vec<String>,
    /// In the order of the source.
    pub interactions: Vec<FoundInteraction>,
    /// None: made from the interactions.
    pub histories: Option<Vec<FoundHistory>>,
    /// Names of further columns of `items.csv`.
    pub attributes: Vec<&'static str>,
    pub faults: Faults,
    item_numbers: HashMap<String, u32>,
    user_numbers: HashMap<String, u32>,
}

impl Gathering {
    pub fn new(skip_bad: bool, attributes: &[&'static str]) -> Self {
        Self {
            faults: Faults::new(skip_bad),
            attributes: attributes.to_vec(),
            ..Self::default()
        }
    }

    /// Takes an item in; its text loses line breaks and double spaces.
    ///
    /// # Errors
    /// An empty or repeated id; where bad rows are skipped, they are counted instead and the first one stays.
    pub fn add_item(&mut self, mut item: FoundItem, place: Place<'_>) -> Result<(), LoadError> {
        item.id = item.id.trim().to_string();
        if item.id.is_empty() {
            return self.faults.meet(place.fault(None, "the item has no id"));
        }
        if self.item_numbers.contains_key(&item.id) {
            let reason = format!("item {:?} stands twice", item.id);
            return self.faults.meet(place.fault(None, reason));
        }
        item.text = one_line(&item.text);
        for attribute in &mut item.attributes {
            *attribute = one_line(attribute);
        }
        let number = number_of(self.items.len(), place)?;
        self.item_numbers.insert(item.id.clone(), number);
        self.items.push(item);
        Ok(())
    }

    /// The number of the item called `id`.
    pub fn item(&self, id: &str) -> Option<u32> {
        self.item_numbers.get(id.trim()).copied()
    }

    /// Takes an interaction in.
    ///
    /// # Errors
    /// A user without a name or an item that is none; where bad rows are skipped, they are counted instead.
    pub fn add_interaction(
        &mut self,
        user: &str,
        item: &str,
        timestamp: i64,
        place: Place<'_>,
    ) -> Result<(), LoadError> {
        let user = user.trim();
        if user.is_empty() {
            return self.faults.meet(place.fault(None, "the user has no name"));
        }
        let Some(item_number) = self.item(item) else {
            let reason = format!("item {:?} is not among the items", item.trim());
            return self.faults.meet(place.fault(None, reason));
        };
        let user = match self.user_numbers.get(user) {
            Some(&number) => number,
            None => {
                let number = number_of(self.users.len(), place)?;
                self.user_numbers.insert(user.to_string(), number);
                self.users.push(user.to_string());
                number
            }
        };
        self.interactions.push(FoundInteraction {
            user,
            item: item_number,
            timestamp,
        });
        Ok(())
    }
}

fn number_of(count: usize, place: Place<'_>) -> Result<u32, LoadError> {
    u32::try_from(count)
        .map_err(|_| LoadError::file(place.path, "more than four thousand million names"))
}

/// Text as it should stand in a table that people read.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
