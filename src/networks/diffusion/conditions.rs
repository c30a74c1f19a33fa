//! What does not change while an image is drawn, computed once: what the blocks read of the prompt, and what they are told
//! of every step's time.

use std::ops::Range;
use std::slice::Iter;

use burn::tensor::{Tensor, backend::Backend};

use super::attention::KeyValue;

/// Keys and values of the prompt for every transformer block, in the order of the forward pass.
#[derive(Debug, Clone)]
pub struct PromptStates<B: Backend> {
    pub(super) blocks: Vec<KeyValue<B>>,
}

/// Shifts of every residual block at some time steps, each `[steps, channels]`, in the order of the forward pass.
#[derive(Debug, Clone)]
pub struct TimeStates<B: Backend> {
    pub(super) shifts: Vec<Tensor<B, 2>>,
}

impl<B: Backend> PromptStates<B> {
    /// Those of some rows of the batch.
    pub fn rows(&self, rows: Range<usize>) -> Self {
        let part = |states: &Tensor<B, 3>| states.clone().narrow(0, rows.start, rows.len());
        let blocks = self.blocks.iter().map(|block| KeyValue {
            key: part(&block.key),
            value: part(&block.value),
        });
        Self {
            blocks: blocks.collect(),
        }
    }
}

impl<B: Backend> TimeStates<B> {
    /// Step `index` alone, the same for every row of a batch of `rows`.
    pub fn at(&self, index: usize, rows: usize) -> Self {
        let step = |shift: &Tensor<B, 2>| shift.clone().narrow(0, index, 1).repeat_dim(0, rows);
        Self {
            shifts: self.shifts.iter().map(step).collect(),
        }
    }
}

/// Both, as a forward pass uses them up.
pub(super) struct Conditions<'a, B: Backend> {
    prompt: Iter<'a, KeyValue<B>>,
    times: Iter<'a, Tensor<B, 2>>,
}

impl<'a, B: Backend> Conditions<'a, B> {
    pub(super) fn new(prompt: &'a PromptStates<B>, times: &'a TimeStates<B>) -> Self {
        Self {
            prompt: prompt.blocks.iter(),
            times: times.shifts.iter(),
        }
    }

    pub(super) fn next_prompt(&mut self) -> KeyValue<B> {
        let next = self.prompt.next().cloned();
        next.expect("the prompt was read by every block of this network")
    }

    pub(super) fn next_shift(&mut self) -> Tensor<B, 2> {
        let next = self.times.next().cloned();
        next.expect("the time was told to every block of this network")
    }
}
