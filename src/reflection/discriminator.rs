//! The ranking model as a judge of images.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use super::reward::Judgement;

/// A frozen ranking model that scores an image in the reference's place (equation 13 of the method).
pub trait Discriminator<B: Backend> {
    /// Judges candidate images for a user: each replaces the visual feature of the `reference` item, whose
    /// graph rows, embedding, score and rank are computed anew.
    ///
    /// # Shapes
    /// - `user`: row of the user in the ranking model; `reference`: place of the item in the catalogue
    /// - `visual`: normalised image embeddings, `[candidates, d]`
    /// - returns a judgement per candidate
    fn judge(&self, user: usize, reference: usize, visual: Tensor<B, 2>) -> Vec<Judgement>;
}
