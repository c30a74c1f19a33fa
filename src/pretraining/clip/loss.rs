//! InfoNCE with several positives.

use burn::tensor::activation::log_softmax;
use burn::tensor::{Tensor, backend::Backend};

/// CLIP's bound on the inverse temperature, as a logarithm: ln 100.
const LARGEST_LOGIT_SCALE: f32 = 4.605_17;

/// The parts of the loss, `[1]` each.
pub(super) struct Parts<B: Backend> {
    /// Texts against pictures.
    pub text: Tensor<B, 1>,
    /// Pictures against pictures.
    pub image: Tensor<B, 1>,
}

/// Texts against pictures in both directions, and pictures against pictures.
///
/// # Shapes
/// - texts `[texts, joint width]`, images `[pictures, joint width]`, normalised; the first pictures have the texts
/// - described `[texts, texts]`: one where the text describes the picture
/// - same_glyph `[pictures, pictures]`: one where two different pictures show one glyph
pub(super) fn contrastive<B: Backend>(
    logit_scale: Tensor<B, 1>,
    texts: Tensor<B, 2>,
    images: Tensor<B, 2>,
    described: Tensor<B, 2>,
    same_glyph: Tensor<B, 2>,
    image_temperature: f64,
) -> Parts<B> {
    let scale = logit_scale
        .clamp_max(LARGEST_LOGIT_SCALE)
        .exp()
        .unsqueeze::<2>();
    let [num_texts, width] = texts.dims();
    let described_images = images.clone().slice([0..num_texts, 0..width]);
    let logits = texts.matmul(described_images.transpose()) * scale;
    let text = (towards(logits.clone(), described.clone())
        + towards(logits.transpose(), described.transpose()))
    .mul_scalar(0.5);

    // A picture is no candidate for itself.
    let [size, _] = same_glyph.dims();
    let own = Tensor::<B, 2>::eye(size, &same_glyph.device()).mul_scalar(-1e9);
    let cosines = images.clone().matmul(images.transpose());
    let image = towards(
        cosines.mul_scalar(1.0 / image_temperature) + own,
        same_glyph,
    );
    Parts { text, image }
}

/// Mean over the rows that have positives of the cross-entropy with all positives in equal parts.
fn towards<B: Backend>(logits: Tensor<B, 2>, positives: Tensor<B, 2>) -> Tensor<B, 1> {
    let counts = positives.clone().sum_dim(1);
    let rows = counts.clone().clamp(0.0, 1.0).sum().clamp_min(1.0);
    let targets = positives / counts.clamp_min(1.0);
    (targets * log_softmax(logits, 1)).sum().neg() / rows
}
