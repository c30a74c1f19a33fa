//! Balance Calibrator: the user's preference fused into the generator's conditioning.

use burn::module::{Initializer, Module, Param};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::activation::softmax;
use burn::tensor::backend::Backend;
use burn::tensor::{Bool, Device, Int, Tensor};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::preference::uniform_linear;

/// How a sequence of token states becomes one vector (not in the paper).
#[derive(Debug, Clone, Copy, Serialize, Deserialize, PartialEq, Eq, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Pool {
    /// Mean over the real tokens.
    #[default]
    Mean,
    /// The end token's state through CLIP's text projection, normalised: a point of the joint space.
    Eos,
}

/// Settings of the [`BalanceCalibrator`].
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct CalibratorConfig {
    /// Attention heads (not in the paper).
    pub num_heads: usize,
    /// From `E_gen` to the vector that is held against the retrieved preference.
    pub pool: Pool,
}

impl Default for CalibratorConfig {
    fn default() -> Self {
        Self {
            num_heads: 8,
            pool: Pool::Mean,
        }
    }
}

impl CalibratorConfig {
    /// A calibrator of conditioning width `width`.
    pub fn init<B: Backend>(
        &self,
        width: usize,
        random: &mut ChaCha8Rng,
        device: &Device<B>,
    ) -> BalanceCalibrator<B> {
        assert_eq!(width % self.num_heads, 0, "heads must divide the width");
        let mut linear = || Linear {
            bias: None,
            ..uniform_linear(width, width, random, device)
        };
        BalanceCalibrator {
            to_q: linear(),
            to_k: linear(),
            to_v: linear(),
            to_out: LinearConfig::new(width, width)
                .with_initializer(Initializer::Zeros)
                .init(device),
            num_heads: self.num_heads,
        }
    }
}

/// `E_gen = E_K + CrossAttention(query E_K, key/value E_mm)` (equation 9 of the method).
///
/// The residual is the figure's; the query side is the only one whose shape fits. The output projection
/// starts at zero, so training starts from `E_gen = E_K`, on the generator's own manifold.
#[derive(Module, Debug)]
pub struct BalanceCalibrator<B: Backend> {
    to_q: Linear<B>,
    to_k: Linear<B>,
    to_v: Linear<B>,
    to_out: Linear<B>,
    num_heads: usize,
}

impl<B: Backend> BalanceCalibrator<B> {
    /// The general preference `E_gen`.
    ///
    /// # Shapes
    /// - `global`: `E_K`, `[batch, Q, d]`
    /// - `multimodal`: `E_mm`, `[batch, L + Q, d]`
    /// - `padding`: true where a position of `E_mm` is padding, `[batch, L + Q]`
    /// - returns `[batch, Q, d]`
    pub fn forward(
        &self,
        global: Tensor<B, 3>,
        multimodal: Tensor<B, 3>,
        padding: Tensor<B, 2, Bool>,
    ) -> Tensor<B, 3> {
        let [batch, queries, width] = global.dims();
        let keys = multimodal.dims()[1];
        let head = width / self.num_heads;
        let split = |t: Tensor<B, 3>, length: usize| {
            t.reshape([batch, length, self.num_heads, head])
                .swap_dims(1, 2)
        };
        let q = split(self.to_q.forward(global.clone()), queries);
        let k = split(self.to_k.forward(multimodal.clone()), keys);
        let v = split(self.to_v.forward(multimodal), keys);
        let scores = q
            .matmul(k.swap_dims(2, 3))
            .mul_scalar((head as f32).powf(-0.5));
        let mask =
            padding
                .reshape([batch, 1, 1, keys])
                .expand([batch, self.num_heads, queries, keys]);
        let attended = softmax(scores.mask_fill(mask, -1e9), 3).matmul(v);
        let attended = attended.swap_dims(1, 2).reshape([batch, queries, width]);
        global + self.to_out.forward(attended)
    }

    /// Replaces the output projection, whose zeros would hide everything before it (for tests).
    pub fn with_output(mut self, weight: Tensor<B, 2>) -> Self {
        self.to_out.weight = Param::from_tensor(weight);
        self
    }
}

/// Mean of `states`, `[batch, t, d]`, over the positions that are not `padding`, `[batch, t]`; `[batch, d]`.
pub fn pool_mean<B: Backend>(states: Tensor<B, 3>, padding: Tensor<B, 2, Bool>) -> Tensor<B, 2> {
    let [batch, length, width] = states.dims();
    // Filled, not computed from `padding.float()`: a float made of booleans has no place in a graph.
    let real = Tensor::<B, 2>::ones([batch, length], &states.device())
        .mask_fill(padding, 0.0)
        .reshape([batch, length, 1]);
    let count = real.clone().sum_dim(1).clamp_min(1.0);
    ((states * real).sum_dim(1) / count).reshape([batch, width])
}

/// The state at each row's end token through `projection`, `[d, joint]`, normalised; `[batch, joint]`.
///
/// `ends` holds the end token's position per row, `[batch]`.
pub fn pool_end<B: Backend>(
    states: Tensor<B, 3>,
    ends: Tensor<B, 1, Int>,
    projection: Tensor<B, 2>,
) -> Tensor<B, 2> {
    let [batch, _, width] = states.dims();
    let index = ends.reshape([batch, 1, 1]).expand([batch, 1, width]);
    let joint = states
        .gather(1, index)
        .reshape([batch, width])
        .matmul(projection);
    let length = joint
        .clone()
        .powi_scalar(2)
        .sum_dim(1)
        .add_scalar(1e-12)
        .sqrt();
    joint / length
}
