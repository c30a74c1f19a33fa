//! The Modal Mapper (method, equation 8): hidden states at the `[IMG]` tokens to the generator's conditioning.
//!
//! It is GILL's `TextFcLayer` in `gill_mapper` mode: a linear layer in, an encoder–decoder transformer
//! whose decoder reads learned queries, a linear layer out. Field names are those of its state
//! dictionary (`fc`, `tfm`, `query_embs`, `model`), where `tfm` is PyTorch's `nn.Transformer`:
//! pre-norm, ReLU, no dropout, no positions, no masks, a norm after either stack.

use burn::module::{Initializer, Module, Param};
use burn::nn::{LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::tensor::activation::{relu, softmax};
use burn::tensor::{DType, Tensor, TensorData, backend::Backend, module::linear};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// Size of the transformer inside the mapper, under `nn.Transformer`'s names. The defaults are the paper's
/// (four layers and two linears are said; the rest is GILL's).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MapperConfig {
    /// Width of the transformer.
    pub d_model: usize,
    /// Attention heads.
    pub nhead: usize,
    /// Layers that read the `[IMG]` states.
    pub num_encoder_layers: usize,
    /// Layers that read the queries.
    pub num_decoder_layers: usize,
    /// Width inside the feed-forward.
    pub dim_feedforward: usize,
}

impl Default for MapperConfig {
    fn default() -> Self {
        Self {
            d_model: 512,
            nhead: 4,
            num_encoder_layers: 4,
            num_decoder_layers: 4,
            dim_feedforward: 2048,
        }
    }
}

/// What the mapper stands between.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapperEnds {
    /// Width of the language model's hidden states, `h`.
    pub in_dim: usize,
    /// Width of the generator's conditioning, `d`.
    pub out_dim: usize,
    /// Learned queries, `Q`: the context length of the generator's text encoder.
    pub num_queries: usize,
}

/// A mapper that cannot be built.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum MapperConfigError {
    /// A count that must be positive.
    #[error("mapper.{field} is 0; it must be at least 1")]
    Zero {
        /// The field.
        field: &'static str,
    },
    /// Heads that do not divide the width.
    #[error("mapper.d_model is {d_model}, which mapper.nhead = {nhead} does not divide")]
    Heads {
        /// The width.
        d_model: usize,
        /// The heads.
        nhead: usize,
    },
}

impl MapperConfig {
    /// Checks that the mapper can be built.
    ///
    /// # Errors
    /// Names the first field that is wrong.
    pub fn validate(&self) -> Result<(), MapperConfigError> {
        let counts = [
            ("d_model", self.d_model),
            ("nhead", self.nhead),
            ("num_encoder_layers", self.num_encoder_layers),
            ("num_decoder_layers", self.num_decoder_layers),
            ("dim_feedforward", self.dim_feedforward),
        ];
        if let Some((field, _)) = counts.into_iter().find(|(_, count)| *count == 0) {
            return Err(MapperConfigError::Zero { field });
        }
        if !self.d_model.is_multiple_of(self.nhead) {
            return Err(MapperConfigError::Heads {
                d_model: self.d_model,
                nhead: self.nhead,
            });
        }
        Ok(())
    }

    /// A fresh mapper: matrices Xavier uniform as `nn.Transformer` draws them, the two linears uniform within
    /// `1/√inputs`, the queries standard normal, biases zero. Drawn on the host from `seed`.
    ///
    /// # Errors
    /// When [`Self::validate`] refuses the configuration.
    pub fn init<B: Backend>(
        &self,
        ends: MapperEnds,
        seed: u64,
        device: &B::Device,
    ) -> Result<ModalMapper<B>, MapperConfigError> {
        self.validate()?;
        let mut draw = Draw {
            random: ChaCha8Rng::seed_from_u64(seed),
            device: device.clone(),
        };
        let bound = |inputs: usize| 1.0 / (inputs as f64).sqrt();
        let fc = draw.linear(ends.in_dim, self.d_model, bound(ends.in_dim));
        let encoder = Stack {
            layers: (0..self.num_encoder_layers)
                .map(|_| EncoderLayer::new(self, &mut draw))
                .collect(),
            norm: layer_norm(self.d_model, device),
        };
        let decoder = Stack {
            layers: (0..self.num_decoder_layers)
                .map(|_| DecoderLayer::new(self, &mut draw))
                .collect(),
            norm: layer_norm(self.d_model, device),
        };
        let queries: Vec<f32> = (0..ends.num_queries * self.d_model)
            .map(|_| draw.normal())
            .collect();
        let queries = TensorData::new(queries, [1, ends.num_queries, self.d_model]);
        Ok(ModalMapper {
            fc,
            tfm: Transformer { encoder, decoder },
            query_embs: Param::from_data(queries, device),
            model: draw.linear(self.d_model, ends.out_dim, bound(self.d_model)),
        })
    }
}

/// The Modal Mapper.
#[derive(Module, Debug)]
pub struct ModalMapper<B: Backend> {
    /// Hidden width to transformer width.
    pub fc: Linear<B>,
    /// The encoder–decoder transformer.
    pub tfm: Transformer<B>,
    /// `[1, queries, transformer width]`.
    pub query_embs: Param<Tensor<B, 3>>,
    /// Transformer width to conditioning width.
    pub model: Linear<B>,
}

impl<B: Backend> ModalMapper<B> {
    /// Maps hidden states to conditioning states.
    ///
    /// `input_embs`, the input embeddings of the `[IMG]` tokens, are added to the states as GILL does;
    /// pass zeros for the states alone.
    ///
    /// # Shapes
    /// Both inputs `[batch, image tokens, hidden width]`; result `[batch, queries, conditioning width]`.
    pub fn forward(&self, states: Tensor<B, 3>, input_embs: Tensor<B, 3>) -> Tensor<B, 3> {
        let [batch, _, _] = states.dims();
        let memory = self.tfm.encode(self.fc.forward(states + input_embs));
        let [_, num_queries, width] = self.query_embs.lazy_shape().dims();
        let queries = self.query_embs.val().expand([batch, num_queries, width]);
        self.model.forward(self.tfm.decode(queries, memory))
    }
}

/// PyTorch's `nn.Transformer`.
#[derive(Module, Debug)]
pub struct Transformer<B: Backend> {
    /// Reads the hidden states.
    pub encoder: Stack<B, EncoderLayer<B>>,
    /// Reads the queries and the encoder's result.
    pub decoder: Stack<B, DecoderLayer<B>>,
}

impl<B: Backend> Transformer<B> {
    fn encode(&self, mut states: Tensor<B, 3>) -> Tensor<B, 3> {
        for layer in &self.encoder.layers {
            states = layer.forward(states);
        }
        self.encoder.norm.forward(states)
    }

    fn decode(&self, mut states: Tensor<B, 3>, memory: Tensor<B, 3>) -> Tensor<B, 3> {
        for layer in &self.decoder.layers {
            states = layer.forward(states, memory.clone());
        }
        self.decoder.norm.forward(states)
    }
}

/// Layers and the norm after them.
#[derive(Module, Debug)]
pub struct Stack<B: Backend, L: Module<B>> {
    /// The layers.
    pub layers: Vec<L>,
    /// The norm after the last.
    pub norm: LayerNorm<B>,
}

/// PyTorch's `nn.TransformerEncoderLayer` with `norm_first`.
#[derive(Module, Debug)]
pub struct EncoderLayer<B: Backend> {
    /// Attention of the states to themselves.
    pub self_attn: MultiheadAttention<B>,
    /// Into the feed-forward.
    pub linear1: Linear<B>,
    /// Out of the feed-forward.
    pub linear2: Linear<B>,
    /// Before the attention.
    pub norm1: LayerNorm<B>,
    /// Before the feed-forward.
    pub norm2: LayerNorm<B>,
}

impl<B: Backend> EncoderLayer<B> {
    fn new(config: &MapperConfig, draw: &mut Draw<B>) -> Self {
        Self {
            self_attn: MultiheadAttention::new(config, draw),
            linear1: draw.xavier(config.d_model, config.dim_feedforward),
            linear2: draw.xavier(config.dim_feedforward, config.d_model),
            norm1: layer_norm(config.d_model, &draw.device),
            norm2: layer_norm(config.d_model, &draw.device),
        }
    }

    fn forward(&self, states: Tensor<B, 3>) -> Tensor<B, 3> {
        let normed = self.norm1.forward(states.clone());
        let states = states + self.self_attn.forward(normed.clone(), normed);
        let normed = self.norm2.forward(states.clone());
        states + self.linear2.forward(relu(self.linear1.forward(normed)))
    }
}

/// PyTorch's `nn.TransformerDecoderLayer` with `norm_first`.
#[derive(Module, Debug)]
pub struct DecoderLayer<B: Backend> {
    /// Attention of the queries to themselves.
    pub self_attn: MultiheadAttention<B>,
    /// Attention of the queries to the encoder's result.
    pub multihead_attn: MultiheadAttention<B>,
    /// Into the feed-forward.
    pub linear1: Linear<B>,
    /// Out of the feed-forward.
    pub linear2: Linear<B>,
    /// Before the self-attention.
    pub norm1: LayerNorm<B>,
    /// Before the cross-attention.
    pub norm2: LayerNorm<B>,
    /// Before the feed-forward.
    pub norm3: LayerNorm<B>,
}

impl<B: Backend> DecoderLayer<B> {
    fn new(config: &MapperConfig, draw: &mut Draw<B>) -> Self {
        Self {
            self_attn: MultiheadAttention::new(config, draw),
            multihead_attn: MultiheadAttention::new(config, draw),
            linear1: draw.xavier(config.d_model, config.dim_feedforward),
            linear2: draw.xavier(config.dim_feedforward, config.d_model),
            norm1: layer_norm(config.d_model, &draw.device),
            norm2: layer_norm(config.d_model, &draw.device),
            norm3: layer_norm(config.d_model, &draw.device),
        }
    }

    fn forward(&self, states: Tensor<B, 3>, memory: Tensor<B, 3>) -> Tensor<B, 3> {
        let normed = self.norm1.forward(states.clone());
        let states = states + self.self_attn.forward(normed.clone(), normed);
        let normed = self.norm2.forward(states.clone());
        let states = states + self.multihead_attn.forward(normed, memory);
        let normed = self.norm3.forward(states.clone());
        states + self.linear2.forward(relu(self.linear1.forward(normed)))
    }
}

/// PyTorch's `nn.MultiheadAttention`: one fused matrix for queries, keys and values.
#[derive(Module, Debug)]
pub struct MultiheadAttention<B: Backend> {
    /// `[3 · width, width]`: queries, keys, values.
    pub in_proj_weight: Param<Tensor<B, 2>>,
    /// `[3 · width]`.
    pub in_proj_bias: Param<Tensor<B, 1>>,
    /// Output projection.
    pub out_proj: Linear<B>,
    num_heads: usize,
}

impl<B: Backend> MultiheadAttention<B> {
    fn new(config: &MapperConfig, draw: &mut Draw<B>) -> Self {
        let width = config.d_model;
        let bound = (6.0 / (4 * width) as f64).sqrt();
        let weight = draw.uniform(3 * width * width, bound);
        Self {
            in_proj_weight: Param::from_data(
                TensorData::new(weight, [3 * width, width]),
                &draw.device,
            ),
            in_proj_bias: Initializer::Zeros.init([3 * width], &draw.device),
            out_proj: draw.xavier(width, width),
            num_heads: config.nhead,
        }
    }

    /// One third of the fused projection, split into heads `[batch, heads, tokens, head width]`.
    fn project(&self, states: Tensor<B, 3>, third: usize) -> Tensor<B, 4> {
        let [batch, tokens, width] = states.dims();
        let weight = self.in_proj_weight.val().narrow(0, third * width, width);
        let bias = self.in_proj_bias.val().narrow(0, third * width, width);
        linear(states, weight.transpose(), Some(bias))
            .reshape([batch, tokens, self.num_heads, width / self.num_heads])
            .swap_dims(1, 2)
    }

    fn forward(&self, states: Tensor<B, 3>, memory: Tensor<B, 3>) -> Tensor<B, 3> {
        let [batch, tokens, width] = states.dims();
        let head_width = width / self.num_heads;
        let queries = self.project(states, 0) / (head_width as f64).sqrt();
        let keys = self.project(memory.clone(), 1);
        let values = self.project(memory, 2);
        let dtype = values.dtype();
        let scores = queries.matmul(keys.swap_dims(2, 3)).cast(DType::F32);
        let mixed = softmax(scores, 3)
            .cast(dtype)
            .matmul(values)
            .swap_dims(1, 2)
            .reshape([batch, tokens, width]);
        self.out_proj.forward(mixed)
    }
}

fn layer_norm<B: Backend>(width: usize, device: &B::Device) -> LayerNorm<B> {
    LayerNormConfig::new(width).with_epsilon(1e-5).init(device)
}

/// Weights drawn on the host.
struct Draw<B: Backend> {
    random: ChaCha8Rng,
    device: B::Device,
}

impl<B: Backend> Draw<B> {
    fn uniform(&mut self, count: usize, bound: f64) -> Vec<f32> {
        (0..count)
            .map(|_| self.random.random_range(-bound..=bound) as f32)
            .collect()
    }

    fn normal(&mut self) -> f32 {
        let radius = (-2.0 * (1.0 - self.random.random::<f64>()).ln()).sqrt();
        (radius * (std::f64::consts::TAU * self.random.random::<f64>()).cos()) as f32
    }

    fn linear(&mut self, inputs: usize, outputs: usize, bound: f64) -> Linear<B> {
        let weight = self.uniform(inputs * outputs, bound);
        let mut layer = LinearConfig::new(inputs, outputs)
            .with_initializer(Initializer::Zeros)
            .init(&self.device);
        layer.weight = Param::from_data(TensorData::new(weight, [inputs, outputs]), &self.device);
        layer
    }

    fn xavier(&mut self, inputs: usize, outputs: usize) -> Linear<B> {
        self.linear(inputs, outputs, (6.0 / (inputs + outputs) as f64).sqrt())
    }
}
