//! CLIP's text tower (`CLIPTextModel`).

use burn::module::Module;
use burn::nn::{Embedding, EmbeddingConfig, LayerNorm};
use burn::tensor::{Bool, Int, Tensor, backend::Backend};

use super::config::ClipTextConfig;
use super::encoder::{ClipEncoder, EncoderSizes};
use crate::nn::precision::widened_layer_norm;

/// The legacy value of `eos_token_id`, which names no token: the largest id of a row ends it.
const LEGACY_END: u32 = 2;

/// Token ids to hidden states.
#[derive(Module, Debug)]
pub struct ClipTextModel<B: Backend> {
    /// Tokens and positions.
    pub embeddings: ClipTextEmbeddings<B>,
    /// The layers.
    pub encoder: ClipEncoder<B>,
    /// After the last layer.
    pub final_layer_norm: LayerNorm<B>,
    eos_token_id: u32,
}

/// Learned embeddings of tokens and of positions.
#[derive(Module, Debug)]
pub struct ClipTextEmbeddings<B: Backend> {
    /// `[vocabulary, width]`.
    pub token_embedding: Embedding<B>,
    /// `[context, width]`.
    pub position_embedding: Embedding<B>,
}

/// What the text tower says of a batch.
#[derive(Debug, Clone)]
pub struct ClipTextOutput<B: Backend> {
    /// States of every token after the final norm, `[batch, tokens, width]`.
    pub last_hidden_state: Tensor<B, 3>,
    /// The state at the end token, `[batch, width]`.
    pub pooler_output: Tensor<B, 2>,
}

impl ClipTextConfig {
    fn sizes(&self) -> EncoderSizes {
        EncoderSizes {
            width: self.hidden_size,
            inner_width: self.intermediate_size,
            num_layers: self.num_hidden_layers,
            num_heads: self.num_attention_heads,
            activation: self.hidden_act,
            epsilon: self.layer_norm_eps,
        }
    }

    /// A tower with arbitrary weights, to be loaded or initialised.
    pub fn init<B: Backend>(&self, device: &B::Device) -> ClipTextModel<B> {
        let sizes = self.sizes();
        let embedding = |rows| EmbeddingConfig::new(rows, self.hidden_size).init(device);
        ClipTextModel {
            embeddings: ClipTextEmbeddings {
                token_embedding: embedding(self.vocab_size),
                position_embedding: embedding(self.max_position_embeddings),
            },
            encoder: sizes.init(device),
            final_layer_norm: sizes.norm(device),
            eos_token_id: self.eos_token_id,
        }
    }
}

impl<B: Backend> ClipTextModel<B> {
    /// States of the ids `[batch, tokens]`. Every position sees those before it, padding included: as
    /// Stable Diffusion does it, and harmless for the end token, which stands before the padding.
    pub fn forward(&self, input_ids: Tensor<B, 2, Int>) -> ClipTextOutput<B> {
        self.forward_masked(input_ids, None)
    }

    /// As [`ClipTextModel::forward`], but no position sees those where `attention_mask` (`[batch, tokens]`) is 0.
    pub fn forward_masked(
        &self,
        input_ids: Tensor<B, 2, Int>,
        attention_mask: Option<Tensor<B, 2, Int>>,
    ) -> ClipTextOutput<B> {
        let last_hidden_state =
            self.forward_embeds(self.token_embeds(input_ids.clone()), attention_mask);
        let ends = self.ends(input_ids);
        let pooler_output = pool(last_hidden_state.clone(), ends);
        ClipTextOutput {
            last_hidden_state,
            pooler_output,
        }
    }

    /// Embeddings of the ids `[batch, tokens]` without positions, `[batch, tokens, width]`.
    pub fn token_embeds(&self, input_ids: Tensor<B, 2, Int>) -> Tensor<B, 3> {
        self.embeddings.token_embedding.forward(input_ids)
    }

    /// Final states of given token embeddings `[batch, tokens, width]`: the way in for learned tokens.
    pub fn forward_embeds(
        &self,
        token_embeds: Tensor<B, 3>,
        attention_mask: Option<Tensor<B, 2, Int>>,
    ) -> Tensor<B, 3> {
        let hidden = hidden_positions(&token_embeds, attention_mask);
        let states = self.with_positions(token_embeds);
        widened_layer_norm(
            &self.final_layer_norm,
            self.encoder.forward(states, Some(hidden)),
        )
    }

    /// The embedded ids and the states after each layer, before the final norm: `layers + 1` of `[batch, tokens, width]`.
    pub fn hidden_states(&self, input_ids: Tensor<B, 2, Int>) -> Vec<Tensor<B, 3>> {
        let embeds = self.token_embeds(input_ids);
        let hidden = hidden_positions(&embeds, None);
        self.encoder
            .hidden_states(self.with_positions(embeds), Some(hidden))
    }

    /// The normed states before the last `num_skipped` layers (diffusers' `clip_skip`); 0 is the last state.
    pub fn skipping(&self, input_ids: Tensor<B, 2, Int>, num_skipped: usize) -> Tensor<B, 3> {
        let mut states = self.hidden_states(input_ids);
        let place = states.len().saturating_sub(1 + num_skipped);
        widened_layer_norm(&self.final_layer_norm, states.swap_remove(place))
    }

    /// True at each row's end token, `[batch, tokens]`.
    pub fn ends(&self, input_ids: Tensor<B, 2, Int>) -> Tensor<B, 2, Bool> {
        let [batch, tokens] = input_ids.dims();
        let device = input_ids.device();
        let is_end = if self.eos_token_id == LEGACY_END {
            let largest = input_ids.clone().max_dim(1).expand([batch, tokens]);
            input_ids.equal(largest)
        } else {
            input_ids.equal_elem(self.eos_token_id as i64)
        };
        // The first of them; backends differ in which of equals `argmax` returns. None at all counts as place 0.
        let places = Tensor::<B, 1, Int>::arange(0..tokens as i64, &device)
            .reshape([1, tokens])
            .expand([batch, tokens]);
        let first = places
            .clone()
            .mask_fill(is_end.bool_not(), tokens as i64)
            .min_dim(1);
        let none = first.clone().equal_elem(tokens as i64);
        let first = first.mask_fill(none, 0);
        places.equal(first.expand([batch, tokens]))
    }

    fn with_positions(&self, token_embeds: Tensor<B, 3>) -> Tensor<B, 3> {
        let [_, tokens, width] = token_embeds.dims();
        let weight = self.embeddings.position_embedding.weight.val();
        let context = weight.dims()[0];
        assert!(
            tokens <= context,
            "a text of {tokens} tokens does not fit the context of {context}"
        );
        let positions = weight.slice([0..tokens, 0..width]).unsqueeze::<3>();
        token_embeds + positions
    }
}

/// The row of `states` where `ends` is true: `[batch, width]`. A masked sum, so that nothing is rounded and the
/// mask needs no graph.
pub(crate) fn pool<B: Backend>(states: Tensor<B, 3>, ends: Tensor<B, 2, Bool>) -> Tensor<B, 2> {
    let others: Tensor<B, 3, Bool> = ends.bool_not().unsqueeze_dim(2);
    let others = others.expand(states.dims());
    states.mask_fill(others, 0.0).sum_dim(1).squeeze_dim(1)
}

/// Which key each query must not see: later ones, and masked ones. `[batch or 1, 1, tokens, tokens]`.
fn hidden_positions<B: Backend>(
    token_embeds: &Tensor<B, 3>,
    attention_mask: Option<Tensor<B, 2, Int>>,
) -> Tensor<B, 4, Bool> {
    let [batch, tokens, _] = token_embeds.dims();
    let device = token_embeds.device();
    // `tril_mask` is true above the diagonal.
    let later = Tensor::<B, 2, Bool>::tril_mask([tokens, tokens], 0, &device)
        .reshape([1, 1, tokens, tokens]);
    match attention_mask {
        None => later,
        Some(mask) => {
            let masked = mask
                .equal_elem(0)
                .reshape([batch, 1, 1, tokens])
                .expand([batch, 1, tokens, tokens]);
            masked.bool_or(later.expand([batch, 1, tokens, tokens]))
        }
    }
}
