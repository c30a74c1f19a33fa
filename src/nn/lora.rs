//! Low-rank adapters (LoRA, arXiv 2106.09685) in PEFT's form: `y = W x + (alpha / r) · B (A x)`.
//!
//! The base weight is never touched and the product `B A` is never formed: switching the adapter
//! off gives back exactly the base network, and memory grows with the rank alone.
// `lora_A` and `lora_B` are PEFT's names, and the module path is the checkpoint's name.
#![allow(non_snake_case)]

use burn::module::{Initializer, Module, Param};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Tensor, TensorData, backend::Backend};
use rand::Rng;
use serde::{Deserialize, Serialize};

/// Which projections get an adapter, and of which size. The paper says LoRA on the language model
/// and no more; the numbers are ours.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoraConfig {
    /// Rank of the update.
    pub r: usize,
    /// The update is multiplied by `alpha / r`.
    pub alpha: f64,
    /// Names of the projections that get an adapter: `q_proj`, `k_proj`, `v_proj`, `o_proj`,
    /// `gate_proj`, `up_proj`, `down_proj`.
    pub target_modules: Vec<String>,
}

impl Default for LoraConfig {
    fn default() -> Self {
        Self {
            r: 8,
            alpha: 16.0,
            target_modules: vec!["q_proj".into(), "v_proj".into()],
        }
    }
}

/// A value that no adapter can have.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum LoraConfigError {
    /// The rank is zero.
    #[error("lora: r is 0; give a rank of at least 1")]
    ZeroRank,
    /// No projection is named.
    #[error("lora: target_modules is empty; name at least one of {known}")]
    NoTarget {
        /// The names there are.
        known: String,
    },
    /// A projection that the network does not have.
    #[error("lora: target_modules names `{found}`, which the network lacks; it has {known}")]
    UnknownTarget {
        /// The unknown name.
        found: String,
        /// The names there are.
        known: String,
    },
}

impl LoraConfig {
    /// Checks the values against the projections of a network.
    ///
    /// # Errors
    /// On a rank of zero, no target, or a target that is not in `projections`.
    pub fn validate(&self, projections: &[&str]) -> Result<(), LoraConfigError> {
        let known = || projections.join(", ");
        if self.r == 0 {
            return Err(LoraConfigError::ZeroRank);
        }
        if self.target_modules.is_empty() {
            return Err(LoraConfigError::NoTarget { known: known() });
        }
        for target in &self.target_modules {
            if !projections.contains(&target.as_str()) {
                return Err(LoraConfigError::UnknownTarget {
                    found: target.clone(),
                    known: known(),
                });
            }
        }
        Ok(())
    }

    /// Whether the projection called `name` gets an adapter.
    pub fn targets(&self, name: &str) -> bool {
        self.target_modules.iter().any(|target| target == name)
    }
}

/// The trainable update of one projection.
#[derive(Module, Debug)]
pub struct LoraUpdate<B: Backend> {
    /// Input to rank, no bias.
    pub lora_A: Linear<B>,
    /// Rank to output, no bias; zero at the start.
    pub lora_B: Linear<B>,
    /// `alpha / r`.
    pub scaling: f64,
}

impl<B: Backend> LoraUpdate<B> {
    /// A fresh update: `A` Kaiming uniform (`a = √5`, so the bound is `1/√inputs`), `B` zero.
    pub fn new(
        inputs: usize,
        outputs: usize,
        config: &LoraConfig,
        random: &mut impl Rng,
        device: &B::Device,
    ) -> Self {
        let bound = 1.0 / (inputs as f32).sqrt();
        let values: Vec<f32> = (0..inputs * config.r)
            .map(|_| random.random_range(-bound..=bound))
            .collect();
        let mut update = Self::zeros(inputs, outputs, config, device);
        update.lora_A.weight =
            Param::from_data(TensorData::new(values, [inputs, config.r]), device);
        update
    }

    /// An update of zeros, to be filled from a file.
    pub fn zeros(inputs: usize, outputs: usize, config: &LoraConfig, device: &B::Device) -> Self {
        let zeros = |from, to| {
            LinearConfig::new(from, to)
                .with_bias(false)
                .with_initializer(Initializer::Zeros)
                .init(device)
        };
        Self {
            lora_A: zeros(inputs, config.r),
            lora_B: zeros(config.r, outputs),
            scaling: config.alpha / config.r as f64,
        }
    }

    /// The update alone, in the adapter's own data type.
    fn forward<const D: usize>(&self, input: Tensor<B, D>) -> Tensor<B, D> {
        let input = input.cast(self.lora_A.weight.val().dtype());
        self.lora_B.forward(self.lora_A.forward(input)) * self.scaling
    }
}

/// A linear layer whose weight can be frozen while an adapter trains beside it.
///
/// The weight lies as in the hub's files, `[outputs, inputs]`, so that base checkpoints load
/// under the layer's own name whether or not an adapter is attached.
#[derive(Module, Debug)]
pub struct LoraLinear<B: Backend> {
    /// `[outputs, inputs]`.
    pub weight: Param<Tensor<B, 2>>,
    /// `[outputs]`.
    pub bias: Option<Param<Tensor<B, 1>>>,
    /// The adapter, when one is attached.
    pub lora: Option<LoraUpdate<B>>,
}

impl<B: Backend> LoraLinear<B> {
    /// A layer of zeros without an adapter, to be loaded or initialised.
    pub fn zeros(inputs: usize, outputs: usize, bias: bool, device: &B::Device) -> Self {
        Self {
            weight: Initializer::Zeros.init([outputs, inputs], device),
            bias: bias.then(|| Initializer::Zeros.init([outputs], device)),
            lora: None,
        }
    }

    /// Number of inputs and outputs.
    pub fn sizes(&self) -> (usize, usize) {
        let [outputs, inputs] = self.weight.lazy_shape().dims();
        (inputs, outputs)
    }

    /// The frozen part, as one product of all tokens with a view of the weight. Burn's own linear function gives the
    /// weight a batch dimension; of a transposed matrix that is a copy, which a graph then keeps: all weights twice.
    fn base<const D: usize>(&self, input: Tensor<B, D>) -> Tensor<B, D> {
        let mut shape = input.dims();
        let (inputs, outputs) = self.sizes();
        let tokens = shape[..D - 1].iter().product::<usize>();
        let flat = input.reshape([tokens, inputs]);
        let output = flat.matmul(self.weight.val().transpose());
        let output = match &self.bias {
            Some(bias) => output + bias.val().unsqueeze(),
            None => output,
        };
        shape[D - 1] = outputs;
        output.reshape(shape)
    }

    /// Base output plus, when an adapter is attached, its update.
    ///
    /// # Shapes
    /// `[.., inputs]` to `[.., outputs]`.
    pub fn forward<const D: usize>(&self, input: Tensor<B, D>) -> Tensor<B, D> {
        let base = self.base(input.clone());
        match &self.lora {
            Some(lora) => {
                let dtype = base.dtype();
                base + lora.forward(input).cast(dtype)
            }
            None => base,
        }
    }
}
