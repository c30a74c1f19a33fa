//! Prompts as the generator's text encoder sees them.

use std::cell::RefCell;
use std::collections::HashMap;

use burn::tensor::backend::Backend;
use burn::tensor::{Bool, DType, Device, Int, Tensor, TensorData};

use crate::networks::clip::ClipTextModel;
use crate::text::TextTokenizer;

/// The generator's text encoder.
pub trait TextEncoder<B: Backend> {
    /// The conditioning of each prompt.
    fn encode(&self, prompts: &[&str]) -> Conditioning<B>;

    /// From an end token's state to the joint space, `[d, joint]`; none where the encoder has no projection.
    fn projection(&self) -> Option<Tensor<B, 2>>;
}

/// Prompts as the generator's text encoder sees them.
#[derive(Debug, Clone)]
pub struct Conditioning<B: Backend> {
    /// `E_K`: last hidden states, `[batch, Q, d]`.
    pub states: Tensor<B, 3>,
    /// True where a token is padding, `[batch, Q]`.
    pub padding: Tensor<B, 2, Bool>,
    /// The end token's position, `[batch]`.
    pub ends: Tensor<B, 1, Int>,
}

/// CLIP's text tower and its tokeniser as the generator's text encoder.
#[derive(Debug)]
pub struct ClipTextEncoder<'a, B: Backend> {
    model: &'a ClipTextModel<B>,
    projection: Option<Tensor<B, 2>>,
    tokenizer: &'a TextTokenizer,
    tokens: usize,
    device: Device<B>,
}

impl<'a, B: Backend> ClipTextEncoder<'a, B> {
    /// An encoder of prompts of `tokens` tokens (`Q`). `projection`, `[d, joint]`, leads to CLIP's joint space.
    pub fn new(
        model: &'a ClipTextModel<B>,
        projection: Option<Tensor<B, 2>>,
        tokenizer: &'a TextTokenizer,
        tokens: usize,
        device: &Device<B>,
    ) -> Self {
        Self {
            model,
            projection,
            tokenizer,
            tokens,
            device: device.clone(),
        }
    }
}

impl<B: Backend> TextEncoder<B> for ClipTextEncoder<'_, B> {
    fn encode(&self, prompts: &[&str]) -> Conditioning<B> {
        let (ids, real) = self.tokenizer.encode_padded(prompts, self.tokens);
        let shape = [prompts.len(), self.tokens];
        let ends: Vec<i64> = real
            .iter()
            .map(|row| row.iter().filter(|real| **real).count() as i64 - 1)
            .collect();
        let ids: Vec<i64> = ids.iter().flatten().map(|id| i64::from(*id)).collect();
        let padding: Vec<bool> = real.iter().flatten().map(|real| !real).collect();
        let ids = Tensor::from_data(TensorData::new(ids, shape), &self.device);
        Conditioning {
            states: self.model.forward(ids).last_hidden_state.cast(DType::F32),
            padding: Tensor::from_data(TensorData::new(padding, shape), &self.device),
            ends: Tensor::from_data(TensorData::new(ends, [prompts.len()]), &self.device),
        }
    }

    fn projection(&self) -> Option<Tensor<B, 2>> {
        self.projection.clone()
    }
}

/// A text encoder that keeps what it encoded: prompts of a training set come again every epoch.
///
/// Every prompt is encoded by itself, so that its states do not depend on its neighbours in a batch, nor on what was
/// remembered before a resume.
pub struct RememberingTextEncoder<'a, B: Backend> {
    encoder: &'a dyn TextEncoder<B>,
    limit: usize,
    kept: RefCell<HashMap<String, Conditioning<B>>>,
}

impl<'a, B: Backend> RememberingTextEncoder<'a, B> {
    /// Remembers the first `limit` different prompts.
    pub fn new(encoder: &'a dyn TextEncoder<B>, limit: usize) -> Self {
        Self {
            encoder,
            limit,
            kept: RefCell::default(),
        }
    }

    fn one(&self, prompt: &str) -> Conditioning<B> {
        if let Some(known) = self.kept.borrow().get(prompt) {
            return known.clone();
        }
        let encoded = self.encoder.encode(&[prompt]);
        let mut kept = self.kept.borrow_mut();
        if kept.len() < self.limit {
            kept.insert(prompt.to_string(), encoded.clone());
        }
        encoded
    }
}

impl<B: Backend> TextEncoder<B> for RememberingTextEncoder<'_, B> {
    fn encode(&self, prompts: &[&str]) -> Conditioning<B> {
        let all: Vec<Conditioning<B>> = prompts.iter().map(|prompt| self.one(prompt)).collect();
        Conditioning {
            states: Tensor::cat(all.iter().map(|c| c.states.clone()).collect(), 0),
            padding: Tensor::cat(all.iter().map(|c| c.padding.clone()).collect(), 0),
            ends: Tensor::cat(all.iter().map(|c| c.ends.clone()).collect(), 0),
        }
    }

    fn projection(&self) -> Option<Tensor<B, 2>> {
        self.encoder.projection()
    }
}
