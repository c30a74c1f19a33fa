//! Items: an image and a text each; the catalogue that holds them all.

use std::collections::HashMap;
use std::path::PathBuf;

/// One thing that can be liked, shown and re-drawn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// As in `items.csv`; never used as a file name.
    pub id: String,
    /// Where the picture lies: the folder's root joined with the path of `items.csv`.
    pub image: PathBuf,
    pub text: String,
}

/// All items of a data folder, addressed by position; the position is the item's number everywhere else.
#[derive(Debug, Clone, Default)]
pub struct Catalogue {
    items: Vec<Item>,
    positions: HashMap<String, usize>,
}

impl Catalogue {
    /// A catalogue of `items`, or the first id that stands twice.
    pub fn new(items: Vec<Item>) -> Result<Self, DuplicateId> {
        let mut positions = HashMap::with_capacity(items.len());
        for (second, item) in items.iter().enumerate() {
            if let Some(first) = positions.insert(item.id.clone(), second) {
                return Err(DuplicateId {
                    id: item.id.clone(),
                    first,
                    second,
                });
            }
        }
        Ok(Self { items, positions })
    }

    pub fn len(&self) -> usize {
        self.items.len()
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The item at a position, if there is one.
    pub fn get(&self, position: usize) -> Option<&Item> {
        self.items.get(position)
    }

    /// The position of the item called `id`.
    pub fn position(&self, id: &str) -> Option<usize> {
        self.positions.get(id).copied()
    }

    pub fn items(&self) -> &[Item] {
        &self.items
    }

    pub fn iter(&self) -> std::slice::Iter<'_, Item> {
        self.items.iter()
    }
}

impl std::ops::Index<usize> for Catalogue {
    type Output = Item;

    fn index(&self, position: usize) -> &Item {
        &self.items[position]
    }
}

impl<'a> IntoIterator for &'a Catalogue {
    type Item = &'a Item;
    type IntoIter = std::slice::Iter<'a, Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.items.iter()
    }
}

/// An item id that stands twice, with both positions (0 is the first item).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("item {id:?} stands twice: items {} and {}", first + 1, second + 1)]
pub struct DuplicateId {
    pub id: String,
    pub first: usize,
    pub second: usize,
}
