//! The way from a reference's words to those of what retrieval found, in the generator's own space.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use super::conditioning::TextEncoder;
use super::sample::Sample;

/// `mean_j E(c_j) − E(c_r)` of each sample over the captions `c_j` of its retrieved items, `[samples, Q, d]`; nothing
/// where nothing was retrieved.
pub fn retrieval_shift<B: Backend>(samples: &[&Sample], text: &dyn TextEncoder<B>) -> Tensor<B, 3> {
    let shifts = samples.iter().map(|sample| {
        let captions = std::iter::once(&sample.reference_caption).chain(&sample.retrieved_captions);
        let captions: Vec<&str> = captions.map(String::as_str).collect();
        let states = text.encode(&captions).states;
        let reference = states.clone().narrow(0, 0, 1);
        match captions.len() - 1 {
            0 => reference.zeros_like(),
            found => states.narrow(0, 1, found).mean_dim(0) - reference,
        }
    });
    Tensor::cat(shifts.collect(), 0)
}
