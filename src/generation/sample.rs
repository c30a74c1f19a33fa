//! One sample of the method: what a user and a reference item come down to before the first trained layer.

use burn::tensor::backend::Backend;
use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

/// Text and vectors of one user and reference; all of it frozen, none of it changes during training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// The user's id.
    pub user: String,
    /// The user's row in the ranking model.
    pub user_index: usize,
    /// The reference's place in the catalogue.
    pub reference: usize,
    /// The reference's id.
    pub reference_id: String,
    /// `K_u`: the user's keywords, the most frequent first.
    pub keywords: Vec<String>,
    /// The language model's line about them, or the keywords themselves.
    pub summary: String,
    /// The preference prompt without its `[IMG]` tokens.
    pub preference_prompt: String,
    /// Its token ids.
    pub preference_ids: Vec<u32>,
    /// The generator's own prompt: keywords (of the history or of what was retrieved) and the reference's words ("Global").
    pub global_prompt: String,
    /// The same with the keywords of the whole history: what methods without retrieval draw from.
    pub history_prompt: String,
    /// Places of the retrieved items in the history, the most similar first.
    pub retrieved: Vec<usize>,
    /// Their captions, in the same order.
    pub retrieved_captions: Vec<String>,
    /// `c_r`: the reference's caption.
    pub reference_caption: String,
    /// `p_ret`, `[d]`.
    pub retrieved_preference: Vec<f32>,
    /// `e_r`: the reference's caption embedding, normalised, `[d]`.
    pub reference_semantic: Vec<f32>,
    /// The reference's image embedding, normalised, `[d]`.
    pub reference_visual: Vec<f32>,
}

/// One vector of each sample, `[samples, d]`.
pub fn rows<B: Backend>(
    samples: &[&Sample],
    vector: impl Fn(&Sample) -> &Vec<f32>,
    device: &Device<B>,
) -> Tensor<B, 2> {
    let width = samples.first().map_or(0, |sample| vector(sample).len());
    let values: Vec<f32> = samples
        .iter()
        .flat_map(|s| vector(s).iter().copied())
        .collect();
    Tensor::from_data(TensorData::new(values, [samples.len(), width]), device)
}
