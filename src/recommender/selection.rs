//! Which items of a catalogue the ranking model knows: held-out items must not even be graph neighbours.

use super::config::RecommenderError;
use super::interactions::Interactions;

/// The items kept, in the catalogue's order: row `i` of the model is the `i`-th of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemSelection {
    places: Vec<usize>,
    rows: Vec<Option<u32>>,
}

impl ItemSelection {
    /// Keeps each item whose flag is set.
    pub fn new(keep: &[bool]) -> Self {
        let places: Vec<usize> = (0..keep.len()).filter(|&place| keep[place]).collect();
        let mut rows = vec![None; keep.len()];
        for (row, &place) in places.iter().enumerate() {
            rows[place] = Some(row as u32);
        }
        Self { places, rows }
    }

    /// Keeps the whole catalogue.
    pub fn all(num_items: usize) -> Self {
        Self::new(&vec![true; num_items])
    }

    /// Number of items kept.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether no item is kept.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The model's row of the item at this place of the catalogue, if it was kept.
    pub fn row(&self, place: usize) -> Option<usize> {
        self.rows
            .get(place)
            .copied()
            .flatten()
            .map(|row| row as usize)
    }

    /// Place in the catalogue of each row.
    pub fn places(&self) -> &[usize] {
        &self.places
    }

    /// The kept rows of a table of the whole catalogue with `width` values per item.
    ///
    /// # Panics
    /// When the table has not a row per item.
    pub fn select(&self, table: &[f32], width: usize) -> Vec<f32> {
        assert_eq!(
            table.len(),
            self.rows.len() * width,
            "values of the catalogue's table"
        );
        self.places
            .iter()
            .flat_map(|&place| table[place * width..(place + 1) * width].iter().copied())
            .collect()
    }

    /// Interactions with kept items, from those of each user with the whole catalogue, oldest first.
    ///
    /// # Errors
    /// When an item lies outside the catalogue.
    pub fn interactions(&self, by_user: &[Vec<usize>]) -> Result<Interactions, RecommenderError> {
        let mut kept = Vec::with_capacity(by_user.len());
        for (user, items) in by_user.iter().enumerate() {
            if let Some(&item) = items.iter().find(|&&item| item >= self.rows.len()) {
                return Err(RecommenderError::UnknownItem {
                    user,
                    item,
                    num_items: self.rows.len(),
                });
            }
            kept.push(items.iter().filter_map(|&item| self.row(item)).collect());
        }
        Interactions::new(self.len(), kept)
    }
}
