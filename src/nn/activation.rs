//! Activations by their Hugging Face names (transformers' `ACT2FN`).

use burn::tensor::{
    Tensor,
    activation::{gelu, gelu_approximate, relu, sigmoid, silu, tanh},
    backend::Backend,
};
use serde::de::{IntoDeserializer, value::StrDeserializer};
use serde::{Deserialize, Serialize};

/// An element-wise activation, as a hub `config.json` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// Exact GELU, by the error function.
    Gelu,
    /// GELU by tanh.
    #[serde(
        alias = "gelu_pytorch_tanh",
        alias = "gelu_fast",
        alias = "gelu_approximate"
    )]
    GeluNew,
    /// `x · sigmoid(1.702 x)`, OpenAI CLIP's.
    QuickGelu,
    Relu,
    #[serde(alias = "swish")]
    Silu,
    Sigmoid,
    Tanh,
}

impl Activation {
    /// The activation of this name, if it is known.
    pub fn named(name: &str) -> Option<Self> {
        let name: StrDeserializer<'_, serde::de::value::Error> = name.into_deserializer();
        Self::deserialize(name).ok()
    }

    /// Applies the activation, whatever the shape.
    pub fn forward<B: Backend, const D: usize>(self, x: Tensor<B, D>) -> Tensor<B, D> {
        match self {
            Self::Gelu => gelu(x),
            Self::GeluNew => gelu_approximate(x),
            Self::QuickGelu => x.clone() * sigmoid(x.mul_scalar(1.702)),
            Self::Relu => relu(x),
            Self::Silu => silu(x),
            Self::Sigmoid => sigmoid(x),
            Self::Tanh => tanh(x),
        }
    }
}
