//! Activations by their Hugging Face names (transformers' `ACT2FN`).

use burn::tensor::{
    Tensor,
    activation::{gelu, gelu_approximate, relu, sigmoid, silu, tanh},
    backend::Backend,
};
use serde::de::{IntoDeserializer, value::StrDeserializer};
use serde::{Deserialize, Serialize};

use super::host;

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
            Self::Gelu => match host::takes(&x) {
                true => in_place(x, host_kernels::gelu),
                false => gelu(x),
            },
            Self::GeluNew => gelu_approximate(x),
            Self::QuickGelu => swish(x, 1.702),
            Self::Relu => relu(x),
            Self::Silu => swish(x, 1.0),
            Self::Sigmoid => sigmoid(x),
            Self::Tanh => tanh(x),
        }
    }
}

/// `x · sigmoid(steepness · x)`, whatever the shape.
fn swish<B: Backend, const D: usize>(x: Tensor<B, D>, steepness: f32) -> Tensor<B, D> {
    if host::takes(&x) {
        in_place(x, |values| host_kernels::silu(values, steepness))
    } else if steepness == 1.0 {
        silu(x)
    } else {
        x.clone() * sigmoid(x.mul_scalar(steepness))
    }
}

fn in_place<B: Backend, const D: usize>(
    x: Tensor<B, D>,
    change: impl FnOnce(&mut [f32]),
) -> Tensor<B, D> {
    let (device, shape) = (x.device(), x.dims());
    let mut values = host::numbers(x);
    change(&mut values);
    host::tensor(values, shape, &device)
}

/// `silu(gate) · value`, whatever the shape.
pub fn gated_silu<B: Backend, const D: usize>(
    gate: Tensor<B, D>,
    value: Tensor<B, D>,
) -> Tensor<B, D> {
    if host::takes(&gate) && host::takes(&value) {
        return in_place(gate, |gates| {
            host_kernels::gated_silu(gates, &host::numbers(value));
        });
    }
    silu(gate) * value
}

/// `value · gelu(gate)`, the values in the first half of each token and the gates in the second.
///
/// # Shapes
/// `[batch, tokens, 2 · width]` → `[batch, tokens, width]`.
pub fn gated_gelu<B: Backend>(projected: Tensor<B, 3>) -> Tensor<B, 3> {
    if host::takes(&projected) {
        let device = projected.device();
        let [batch, tokens, width] = projected.dims();
        let gated = host_kernels::gated_gelu(&host::numbers(projected), width / 2);
        return host::tensor(gated, [batch, tokens, width / 2], &device);
    }
    let mut halves = projected.chunk(2, 2);
    let gate = halves.remove(1);
    halves.remove(0) * gelu(gate)
}
