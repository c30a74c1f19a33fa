//! The given features of every item: one vector of its image, one of its text.

use burn::tensor::{Device, Tensor, TensorData, backend::Backend};

use super::config::RecommenderError;
use super::interactions::Interactions;

/// The two kinds of item features.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Modality {
    /// Visual features.
    Image,
    /// Textual features.
    Text,
}

impl Modality {
    /// Both, in the order in which they are fused.
    pub const ALL: [Self; 2] = [Self::Image, Self::Text];
}

/// One feature vector per item, on the host.
#[derive(Debug, Clone, PartialEq)]
pub struct FeatureTable {
    width: usize,
    values: Vec<f32>,
}

impl FeatureTable {
    /// A table of `rows` vectors of `width` values, row after row; `table` names it in errors.
    ///
    /// # Errors
    /// When the values do not fill the table, or one is not finite.
    pub fn new(
        table: &'static str,
        rows: usize,
        width: usize,
        values: Vec<f32>,
    ) -> Result<Self, RecommenderError> {
        if width == 0 || values.len() != rows * width {
            return Err(RecommenderError::FeatureShape {
                table,
                rows,
                width,
                found: values.len(),
            });
        }
        if let Some(place) = values.iter().position(|v| !v.is_finite()) {
            return Err(RecommenderError::FeatureValue {
                table,
                item: place / width,
                value: values[place],
            });
        }
        Ok(Self { width, values })
    }

    /// Number of items.
    pub fn num_rows(&self) -> usize {
        self.values.len() / self.width
    }

    /// Values per item.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The features of one item.
    pub fn row(&self, item: usize) -> &[f32] {
        &self.values[item * self.width..(item + 1) * self.width]
    }

    /// A table of one vector per item, of whatever width the first has; `table` names it in errors.
    ///
    /// # Errors
    /// When a row has another width than the first, there is none, or a value is not finite.
    pub fn from_rows<R: AsRef<[f32]>>(
        table: &'static str,
        rows: &[R],
    ) -> Result<Self, RecommenderError> {
        let width = rows.first().map_or(0, |row| row.as_ref().len());
        let mut values = Vec::with_capacity(rows.len() * width);
        for (item, row) in rows.iter().enumerate() {
            let row = row.as_ref();
            if row.len() != width {
                return Err(RecommenderError::FeatureWidth {
                    table,
                    item,
                    width,
                    found: row.len(),
                });
            }
            values.extend_from_slice(row);
        }
        Self::new(table, rows.len(), width, values)
    }

    /// The table as a tensor `[items, width]`.
    pub fn tensor<B: Backend>(&self, device: &Device<B>) -> Tensor<B, 2> {
        let data = TensorData::new(self.values.clone(), [self.num_rows(), self.width]);
        Tensor::from_data(data, device)
    }

    /// The same table with one item's features replaced.
    ///
    /// # Panics
    /// When `features` has another width.
    pub fn with_row(&self, item: usize, features: &[f32]) -> Self {
        assert_eq!(features.len(), self.width, "width of the new features");
        let mut table = self.clone();
        table.values[item * self.width..(item + 1) * self.width].copy_from_slice(features);
        table
    }
}

/// The image and text features of the same items.
#[derive(Debug, Clone, PartialEq)]
pub struct ItemFeatures {
    /// Visual features.
    pub image: FeatureTable,
    /// Textual features.
    pub text: FeatureTable,
}

impl ItemFeatures {
    /// Joins both tables.
    ///
    /// # Errors
    /// When they describe different numbers of items.
    pub fn new(image: FeatureTable, text: FeatureTable) -> Result<Self, RecommenderError> {
        if image.num_rows() != text.num_rows() {
            return Err(RecommenderError::FeatureShape {
                table: "text",
                rows: image.num_rows(),
                width: text.width(),
                found: text.num_rows() * text.width(),
            });
        }
        Ok(Self { image, text })
    }

    /// Checks that there is a row for every item that can be interacted with.
    ///
    /// # Errors
    /// When features and interactions speak of different numbers of items.
    pub fn check_catalogue(&self, interactions: &Interactions) -> Result<(), RecommenderError> {
        if self.num_items() == interactions.num_items() {
            return Ok(());
        }
        Err(RecommenderError::Catalogue {
            features: self.num_items(),
            interactions: interactions.num_items(),
        })
    }

    /// Number of items.
    pub fn num_items(&self) -> usize {
        self.image.num_rows()
    }

    /// The table of a modality.
    pub fn of(&self, modality: Modality) -> &FeatureTable {
        match modality {
            Modality::Image => &self.image,
            Modality::Text => &self.text,
        }
    }
}
