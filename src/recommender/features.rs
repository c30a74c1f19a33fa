//! The given features of every item: one vector of its image, one of its text.

use burn::tensor::{Device, Tensor, TensorData, backend::Backend};

use super::config::RecommenderError;

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

    /// Number of items.
    pub fn num_items(&self) -> usize {
        self.image.num_rows()
    }
}
