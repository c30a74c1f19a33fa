//! What defines a ranking model, and what can be wrong with it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The ranking models: the paper's, its forerunner, its ablations, and the floor.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecommenderKind {
    /// MICRO: item graphs per modality, fused per item, with a contrastive loss. The paper's ranking model.
    #[default]
    Micro,
    /// LATTICE: the modal item graphs summed with two learned shares before propagation.
    Lattice,
    /// LightGCN alone: interactions, no features.
    LightGcn,
    /// Matrix factorisation under the same pairwise loss: no graph at all.
    MatrixFactorisation,
    /// Everyone gets what most users took. Nothing is learned.
    Popularity,
}

impl RecommenderKind {
    /// All of them, the paper's first.
    pub const ALL: [Self; 5] = [
        Self::Micro,
        Self::Lattice,
        Self::LightGcn,
        Self::MatrixFactorisation,
        Self::Popularity,
    ];

    /// The word in configurations.
    pub fn word(self) -> &'static str {
        match self {
            Self::Micro => "micro",
            Self::Lattice => "lattice",
            Self::LightGcn => "light-gcn",
            Self::MatrixFactorisation => "matrix-factorisation",
            Self::Popularity => "popularity",
        }
    }
}

impl fmt::Display for RecommenderKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.word())
    }
}

/// The shape of a ranking model and the weights of its losses. Defaults are MICRO's published settings; a
/// model without item graphs passes over what concerns them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MicroConfig {
    /// Which model.
    pub kind: RecommenderKind,
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
    /// Items drawn per batch for the contrastive loss; 0 for all, as the authors do. All cost time that grows
    /// with the square of the catalogue (ours).
    pub contrastive_items: usize,
    /// Temperature of the contrastive loss.
    pub temperature: f32,
    /// Weight of half the squared norm of a batch's final embeddings, divided by the batch size.
    pub l2_weight: f32,
    /// Rows of the item-by-item score matrix held at once by the contrastive loss and by neighbour search;
    /// fewer where the catalogue is large, see [`Self::rows_per_block`].
    pub block_rows: usize,
    /// A graph with at most this many cells is stored as a matrix; a larger one as padded rows.
    pub dense_cells: usize,
    /// Seed of the initial parameters.
    pub seed: u64,
}

impl Default for MicroConfig {
    fn default() -> Self {
        Self {
            kind: RecommenderKind::Micro,
            embedding_width: 64,
            num_layers: 2,
            num_item_layers: 1,
            num_neighbours: 10,
            original_weight: 0.9,
            contrastive_weight: 0.03,
            contrastive_items: 0,
            temperature: 0.5,
            l2_weight: 1e-5,
            block_rows: 2048,
            dense_cells: 1 << 22,
            seed: 0,
        }
    }
}

impl MicroConfig {
    /// Rows of a score matrix with `columns` columns to hold at once, so that memory stays linear in the
    /// catalogue.
    pub fn rows_per_block(&self, columns: usize) -> usize {
        rows_per_block(self.block_rows, columns)
    }

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

/// At most `block_rows` rows, and so many that the block has no more than 24 MiB: above 32 MiB the C library asks the
/// system for every block anew.
pub(crate) fn rows_per_block(block_rows: usize, columns: usize) -> usize {
    const CELLS: usize = 6 << 20;
    block_rows.min(CELLS / columns.max(1)).max(1)
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
    /// A feature row that is wider or narrower than the first.
    #[error(
        "{table} features of item {item} have width {found}, those of item 0 have {width}: embed all items with one network"
    )]
    FeatureWidth {
        /// `image` or `text`.
        table: &'static str,
        /// Row of the table.
        item: usize,
        /// Width of the first row.
        width: usize,
        /// Width found.
        found: usize,
    },
    /// Features of one catalogue, interactions with another.
    #[error(
        "the features describe {features} items, the interactions are with a catalogue of {interactions}: give a feature row per item"
    )]
    Catalogue {
        /// Rows of the feature tables.
        features: usize,
        /// Items that can be interacted with.
        interactions: usize,
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
