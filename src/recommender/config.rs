//! What defines a ranking model, and what can be wrong with it.

use serde::{Deserialize, Serialize};

/// The shape of MICRO and the weights of its losses. Defaults are the authors' published settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MicroConfig {
    /// Width of user, item and projected feature vectors.
    pub embedding_width: usize,
    /// LightGCN layers over interactions; the result is the mean of layers 0 to this one.
    pub num_layers: usize,
    /// Propagations over each item graph.
    pub num_item_layers: usize,
    /// Neighbours kept per item in each item graph, the item itself included.
    pub num_neighbours: usize,
    /// Share of the graph mined from the given features; the learned graph gets the rest.
    pub original_weight: f32,
    /// Weight of the contrastive loss, summed over modalities.
    pub contrastive_weight: f32,
    /// Temperature of the contrastive loss.
    pub temperature: f32,
    /// Weight of half the squared norm of a batch's final embeddings, divided by the batch size.
    pub l2_weight: f32,
    /// Rows of the item-by-item score matrix held at once by the contrastive loss and by neighbour search.
    pub block_rows: usize,
    /// A graph with at most this many cells is stored as a matrix; a larger one as padded rows.
    pub dense_cells: usize,
    /// Seed of the initial parameters.
    pub seed: u64,
}

impl Default for MicroConfig {
    fn default() -> Self {
        Self {
            embedding_width: 64,
            num_layers: 2,
            num_item_layers: 1,
            num_neighbours: 10,
            original_weight: 0.9,
            contrastive_weight: 0.03,
            temperature: 0.5,
            l2_weight: 1e-5,
            block_rows: 2048,
            dense_cells: 1 << 22,
            seed: 0,
        }
    }
}

impl MicroConfig {
    /// Refuses values no model can be built with.
    ///
    /// # Errors
    /// [`RecommenderError::Setting`] naming the field, its value and the values allowed.
    pub fn validate(&self) -> Result<(), RecommenderError> {
        let positive = |field, value: usize| check(field, value, "at least 1", value >= 1);
        positive("embedding_width", self.embedding_width)?;
        positive("num_neighbours", self.num_neighbours)?;
        positive("block_rows", self.block_rows)?;
        check(
            "original_weight",
            self.original_weight,
            "from 0 to 1",
            (0.0..=1.0).contains(&self.original_weight),
        )?;
        check(
            "temperature",
            self.temperature,
            "above 0",
            self.temperature.is_finite() && self.temperature > 0.0,
        )?;
        for (field, value) in [
            ("contrastive_weight", self.contrastive_weight),
            ("l2_weight", self.l2_weight),
        ] {
            check(
                field,
                value,
                "finite and not negative",
                value.is_finite() && value >= 0.0,
            )?;
        }
        Ok(())
    }
}

/// Turns a broken condition into an error that names the field.
pub(crate) fn check(
    field: &'static str,
    value: impl std::fmt::Display,
    allowed: &'static str,
    holds: bool,
) -> Result<(), RecommenderError> {
    if holds {
        Ok(())
    } else {
        Err(RecommenderError::Setting {
            field,
            value: value.to_string(),
            allowed,
        })
    }
}

/// Input that no ranking model can be built from.
#[derive(Debug, thiserror::Error)]
pub enum RecommenderError {
    /// A setting outside its range.
    #[error("{field} = {value}: it must be {allowed}")]
    Setting {
        /// Name of the setting.
        field: &'static str,
        /// Value found.
        value: String,
        /// Values allowed.
        allowed: &'static str,
    },
    /// Feature values that do not form the promised table.
    #[error("{table} features: {found} values do not make {rows} rows of width {width}")]
    FeatureShape {
        /// `image` or `text`.
        table: &'static str,
        /// Rows expected: one per item.
        rows: usize,
        /// Values per row.
        width: usize,
        /// Values found.
        found: usize,
    },
    /// A feature that is not a finite number.
    #[error(
        "{table} features of item {item}: {value} is not finite; recompute this item's embedding"
    )]
    FeatureValue {
        /// `image` or `text`.
        table: &'static str,
        /// Row of the table.
        item: usize,
        /// Value found.
        value: f32,
    },
    /// An interaction with an item outside the catalogue.
    #[error("user {user} interacted with item {item}, but the catalogue has {num_items} items")]
    UnknownItem {
        /// Row of the user.
        user: usize,
        /// Item found.
        item: usize,
        /// Size of the catalogue.
        num_items: usize,
    },
    /// Nothing to learn from.
    #[error("no user has an interaction to train on: give at least one user with two items")]
    NoInteractions,
    /// Parameters of another catalogue or width.
    #[error(
        "the ranking model's {name} has shape {found:?}, this catalogue needs {expected:?}; train it again"
    )]
    Shape {
        /// Parameter.
        name: &'static str,
        /// Shape this catalogue and configuration need.
        expected: [usize; 2],
        /// Shape found.
        found: [usize; 2],
    },
}
