//! What the frozen networks say of each item, computed once and kept: captions (BLIP-2), embeddings of
//! captions (CLIP's text tower) and of pictures (CLIP's vision tower).
//!
//! Everything depends on frozen weights and the item alone, so it is looked up in a content-addressed
//! [`store`] first. This room receives loaded networks; it opens no checkpoint and trains nothing.

pub mod caption;
pub mod inception;
pub mod picture;
pub mod semantic;
pub mod store;
pub mod visual;

use crate::data::image::ImageError;
use crate::networks::blip2::Blip2Error;

pub use picture::Picture;
pub use store::{FeatureStore, Key, StoreError};

/// A feature that cannot be computed or kept.
#[derive(Debug, thiserror::Error)]
pub enum FeatureError {
    /// The store cannot be written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A picture cannot be used.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The captioner refused.
    #[error("the captioner: {0}")]
    Caption(#[from] Blip2Error),
}

/// Splits a batch's rows, `[batch, width]` on the host, into one vector each.
fn rows(data: &burn::tensor::TensorData, batch: usize) -> Vec<Vec<f32>> {
    let values: Vec<f32> = data.iter::<f32>().collect();
    let width = values.len() / batch.max(1);
    values.chunks(width.max(1)).map(<[f32]>::to_vec).collect()
}
