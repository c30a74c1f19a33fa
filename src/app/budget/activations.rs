//! Bytes of intermediate tensors, from what each operation keeps.

use crate::generation::generator::LATENT_PIXELS_DECODED;
use crate::generation::mapper::MapperConfig;
use crate::networks::diffusion::{UNetConfig, VaeConfig};
use crate::networks::llama::LlamaConfig;
use crate::nn::lora::LoraConfig;

/// Single precision, which norms, softmax and everything trained compute in.
const F32: u64 = 4;

/// A forward pass of the language model with its adapter, on the way to a backward pass.
#[derive(Debug, Clone, Copy)]
pub struct LanguageStep<'a> {
    /// The network.
    pub shape: &'a LlamaConfig,
    /// The adapter.
    pub lora: &'a LoraConfig,
    /// Of a number of the frozen network.
    pub bytes: u64,
    /// Prompts.
    pub batch: u64,
    /// Tokens of each, padding and `[IMG]` included.
    pub tokens: u64,
}

impl LanguageStep<'_> {
    /// Bytes that the graph keeps of all layers.
    pub fn kept(&self) -> u64 {
        self.shape.num_hidden_layers as u64 * self.layer()
    }

    /// Bytes that are kept where `layers` are recorded at once and the others computed again in the backward pass: the
    /// states between segments, and one segment. 0 records all.
    pub fn kept_by_segments(&self, layers: u64) -> u64 {
        let all = self.shape.num_hidden_layers as u64;
        if layers == 0 || layers >= all {
            return self.kept();
        }
        let states = self.batch * self.tokens * self.shape.hidden_size as u64 * self.bytes;
        all.div_ceil(layers) * states + layers * self.layer()
    }

    /// Bytes that the graph keeps of one layer.
    pub fn layer(&self) -> u64 {
        let (shape, bytes) = (self.shape, self.bytes);
        let hidden = shape.hidden_size as u64;
        let inner = shape.intermediate_size as u64;
        let heads = shape.num_attention_heads as u64;
        let head = shape.head_dim() as u64;
        let keys = shape.num_key_value_heads() as u64 * head;
        let queries = heads * head;
        let widened = if bytes == F32 { 0 } else { F32 };

        // Two norms: the state that is divided; in half precision its square is taken of a widened copy.
        let norms = 2 * hidden * (bytes + widened);
        // Inputs of adapted projections, each widened for its adapter; in f32 projections share their input.
        let inputs = [
            (vec!["q_proj", "k_proj", "v_proj"], hidden),
            (vec!["o_proj"], queries),
            (vec!["gate_proj", "up_proj"], hidden),
            (vec!["down_proj"], inner),
        ];
        let adapters: u64 = inputs
            .iter()
            .map(|(names, width)| {
                let adapted = names.iter().filter(|name| self.lora.targets(name)).count() as u64;
                let copies = if bytes == F32 {
                    adapted.min(1)
                } else {
                    adapted
                };
                copies * width * F32 + adapted * self.lora.r as u64 * F32
            })
            .sum();
        // Both factors of the scores, and the values.
        let attention = bytes * (queries + 2 * keys);
        // Per token a row of every head: scores and exponentials in f32, and the weights.
        let rows = heads * self.tokens * (2 * F32 + bytes);
        // Gate, its sigmoid, their product, and what it is multiplied with.
        let feed_forward = 4 * inner * bytes;
        self.batch * self.tokens * (norms + adapters + attention + rows + feed_forward)
    }

    /// Bytes at work while one layer goes backward: gradients of its widest parts.
    pub fn layer_backward(&self) -> u64 {
        let shape = self.shape;
        let scores = 3 * shape.num_attention_heads as u64 * self.tokens * F32;
        let feed_forward = 4 * shape.intermediate_size as u64 * self.bytes;
        self.batch * self.tokens * scores.max(feed_forward)
    }

    /// Keys and values of `batch` texts of `tokens` tokens.
    pub fn cache(&self, batch: u64, tokens: u64) -> u64 {
        let shape = self.shape;
        let width = (shape.num_key_value_heads() * shape.head_dim()) as u64;
        2 * shape.num_hidden_layers as u64 * batch * tokens * width * self.bytes
    }
}

/// Bytes that the graph keeps of the mapper: encoder layers over some tokens, decoder layers over `queries`.
pub fn mapper_bytes(mapper: &MapperConfig, queries: u64, batch: u64) -> u64 {
    let (width, inner) = (mapper.d_model as u64, mapper.dim_feedforward as u64);
    let heads = mapper.nhead as u64;
    // Norms, projections, scores, feed-forward, everything trained: inputs and outputs both.
    let layer = F32 * (16 * width + 3 * inner + 4 * heads * queries);
    let layers = (mapper.num_encoder_layers + mapper.num_decoder_layers) as u64;
    batch * queries * layers * layer
}

/// Bytes at work in the denoising network on `rows` latents, without a graph.
///
/// The skip connections, and the largest of: a residual block after the last one, self-attention at the full size
/// whose scores are materialised (a fused kernel needs less), and the gated feed-forward there.
pub fn denoising_bytes(unet: &UNetConfig, rows: u64, bytes: u64) -> u64 {
    let side = unet.sample_size.unwrap_or(64) as u64;
    let levels = unet.block_out_channels.len();
    let channels = |level: usize| unet.block_out_channels[level] as u64;
    let pixels = |level: usize| (side >> level).pow(2);
    let mut skips = channels(0) * pixels(0);
    for level in 0..levels {
        skips += unet.layers_per_block.at(level) as u64 * channels(level) * pixels(level);
        if level + 1 < levels {
            skips += channels(level) * pixels(level + 1);
        }
    }
    let above = channels(1.min(levels - 1));
    // State and skip side by side, the norm's two widened copies, and the result.
    let joined = channels(0) + above;
    let residual = pixels(0) * (joined * (2 * bytes + 2 * F32) + 2 * channels(0) * bytes);
    let heads = match &unet.num_attention_heads {
        Some(heads) => heads.at(0),
        None => unet.attention_head_dim.at(0),
    } as u64;
    // Scores and weights.
    let attention = pixels(0) * (heads * pixels(0) * 2 * bytes + 5 * channels(0) * bytes);
    let feed_forward = pixels(0) * channels(0) * 16 * bytes;
    let largest = residual.max(attention).max(feed_forward);
    rows * (skips * bytes + largest)
}

/// Bytes at work in the autoencoder's decoder for `images` images, without a graph: the residual block at the full size
/// that takes in the channels of the level below. Few large images are decoded at once.
pub fn decoding_bytes(vae: &VaeConfig, unet: &UNetConfig, images: u64, bytes: u64) -> u64 {
    let levels = vae.block_out_channels.len();
    let latent = (unet.sample_size.unwrap_or(64) as u64).pow(2);
    let at_once = (LATENT_PIXELS_DECODED as u64 / latent).clamp(1, images.max(1));
    let pixels = latent << (2 * (levels - 1));
    let channels = |level: usize| vae.block_out_channels[level] as u64;
    let below = channels(1.min(levels - 1));
    let residual = below * (2 * bytes + 2 * F32) + 2 * channels(0) * bytes;
    // All images in f32 beside it.
    at_once * pixels * residual + images * pixels * 3 * F32
}
