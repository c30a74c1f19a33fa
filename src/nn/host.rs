//! The processor as a device: what runs there without a graph may work on plain memory, and on several images at once.
//!
//! Burn's pure-Rust backend computes element by element on one core, and its 3×3 convolution takes five times as long as
//! LibTorch's (`docs/performance.md` has the cases). This is the one place that knows: the layers beside it ask
//! [`is_plain`] and hand their numbers to `host_kernels`, or else to Burn.

use std::ops::Range;

use burn::tensor::backend::Backend;
use burn::tensor::{DType, Device, Tensor, TensorData};
use host_kernels::Instructions;
use rayon::prelude::*;

/// Does this device compute in the processor's own memory, by Burn's pure-Rust backend and without a graph?
///
/// Asked by name, so that everything stays generic over the backend; LibTorch has fast kernels of its own.
pub fn is_plain<B: Backend>(device: &Device<B>) -> bool {
    !B::ad_enabled(device) && computes::<B>(device)
}

/// Does Burn's pure-Rust backend compute here, with or without a graph?
pub fn computes<B: Backend>(device: &Device<B>) -> bool {
    B::name(device).contains("flex")
}

/// Should `tensor` go through the kernels of this program?
pub(crate) fn takes<B: Backend, const D: usize>(tensor: &Tensor<B, D>) -> bool {
    tensor.dtype() == DType::F32
        && host_kernels::instructions() != Instructions::Portable
        && is_plain::<B>(&tensor.device())
}

/// The numbers of a tensor that [`takes`] accepted; a copy where they are shared.
pub(crate) fn numbers<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Vec<f32> {
    tensor.into_data().into_vec().expect("f32, as was asked")
}

/// A tensor of these numbers.
pub(crate) fn tensor<B: Backend, const D: usize>(
    numbers: Vec<f32>,
    shape: [usize; D],
    device: &Device<B>,
) -> Tensor<B, D> {
    Tensor::from_data(TensorData::new(numbers, shape), device)
}

/// `work` over the `rows` of a batch, its results one after the other.
///
/// On the processor every core takes a part of the rows, because most of the backend's kernels keep to one core. Elsewhere
/// all rows go at once.
pub fn over_rows<B: Backend, const D: usize>(
    rows: usize,
    device: &Device<B>,
    work: impl Fn(Range<usize>) -> Tensor<B, D> + Sync,
) -> Tensor<B, D> {
    let parts = rayon::current_num_threads().min(rows);
    if parts < 2 || !is_plain::<B>(device) {
        return work(0..rows);
    }
    let part = |index: usize| index * rows / parts..(index + 1) * rows / parts;
    let done = (0..parts).into_par_iter().map(|index| work(part(index)));
    Tensor::cat(done.collect(), 0)
}
