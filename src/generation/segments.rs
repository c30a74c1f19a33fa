//! The backward pass in segments of the language model's layers (gradient checkpointing, Chen et al., 2016).
//!
//! Of the language model only the states between segments are kept; each segment is computed once more when its turn
//! in the backward pass comes. Activations then take the memory of one segment and of the borders, for one further
//! forward pass.

use std::ops::Range;

use burn::module::AutodiffModule;
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::Tensor;
use burn::tensor::backend::AutodiffBackend;

use super::preference::{Embedded, Preference, PreferenceModel, Reading};

/// Gradients of `loss` with respect to everything that trains. `segment_layers` layers of the language model are
/// recorded at once; 0 records all.
pub fn gradients<B: AutodiffBackend>(
    model: &PreferenceModel<B>,
    reading: &Reading<'_, B>,
    segment_layers: usize,
    loss: impl FnOnce(Preference<B>) -> Tensor<B, 1>,
) -> GradientsParams {
    let layers = model.llama.num_layers();
    if segment_layers == 0 || segment_layers >= layers {
        let gradients = loss(model.forward(reading)).backward();
        return GradientsParams::from_grads(gradients, model);
    }
    let segments: Vec<Range<usize>> = (0..layers)
        .step_by(segment_layers)
        .map(|start| start..(start + segment_layers).min(layers))
        .collect();

    // Forward without a graph: the states at each segment's border.
    let embedded = model.embed(reading);
    let mask = embedded.mask.clone();
    let frozen = model.llama.valid();
    let mut borders = vec![embedded.states.clone().inner()];
    for segment in &segments {
        let states = borders[borders.len() - 1].clone();
        borders.push(frozen.forward_range(states, mask.clone().inner(), segment.clone()));
    }

    // From the last border to the loss and back.
    let mut accumulator = GradientsAccumulator::new();
    let last = leaf(borders.pop().expect("a border behind each segment"));
    // The mapper reads the embedded [IMG] tokens themselves too.
    let direct = leaf(embedded.states.clone().inner());
    let normed = model.llama.final_norm(last.clone());
    let shortcut = Embedded {
        states: direct.clone(),
        mask: mask.clone(),
    };
    let mut gradients = loss(model.fuse(reading, shortcut, normed)).backward();
    let direct = direct.grad_remove(&mut gradients);
    let mut flowing = last.grad_remove(&mut gradients);
    accumulator.accumulate(model, GradientsParams::from_grads(gradients, model));

    // Each segment again, with a graph, from the last to the first.
    for segment in segments.into_iter().rev() {
        let start = leaf(borders.pop().expect("a border before each segment"));
        let Some(gradient) = flowing.take() else {
            break;
        };
        let end = model
            .llama
            .forward_range(start.clone(), mask.clone(), segment);
        let mut gradients = (end * Tensor::from_inner(gradient)).sum().backward();
        flowing = start.grad_remove(&mut gradients);
        accumulator.accumulate(model, GradientsParams::from_grads(gradients, model));
    }
    let arriving = match (flowing, direct) {
        (Some(a), Some(b)) => Some(a + b),
        (a, b) => a.or(b),
    };
    if let Some(gradient) = arriving {
        let gradients = (embedded.states * Tensor::from_inner(gradient))
            .sum()
            .backward();
        accumulator.accumulate(model, GradientsParams::from_grads(gradients, model));
    }
    accumulator.grads()
}

/// `states` as the beginning of a graph.
fn leaf<B: AutodiffBackend>(states: Tensor<B::InnerBackend, 3>) -> Tensor<B, 3> {
    Tensor::from_inner(states).require_grad()
}
