//! The three losses of the reflection module.

use burn::tensor::Tensor;
use burn::tensor::backend::{AutodiffBackend, Backend};
use serde::{Deserialize, Serialize};

/// How far apart two embeddings are (the paper names the operands, not the distance).
#[derive(Debug, Clone, Copy, Serialize, Deserialize, PartialEq, Eq, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Distance {
    /// Mean squared difference.
    #[default]
    Mse,
    /// One less the cosine.
    Cosine,
}

impl Distance {
    /// Mean over the batch of the distance between rows of `a` and `b`, both `[batch, d]`; `[1]`.
    pub fn mean<B: Backend>(self, a: Tensor<B, 2>, b: Tensor<B, 2>) -> Tensor<B, 1> {
        assert_eq!(a.dims(), b.dims(), "distance of different shapes");
        match self {
            Self::Mse => (a - b).powi_scalar(2).mean(),
            Self::Cosine => {
                let length = |t: &Tensor<B, 2>| {
                    let squares = t.clone().powi_scalar(2).sum_dim(1);
                    squares.add_scalar(1e-12).sqrt()
                };
                let lengths = length(&a) * length(&b);
                ((a * b).sum_dim(1) / lengths).mean().neg().add_scalar(1.0)
            }
        }
    }
}

/// `L_rank = −(1/n) Σ_i A_i · log N(sg(z_i); E_gen, σ² I)`, the log-density averaged over its `Q·d`
/// dimensions and the samples of the batch (equation 15 of the method); `[1]`. `log_sigma` is `ln σ`, `[1]`.
///
/// `general` is `E_gen`, `[batch, Q, d]`, with its graph. `explored` is `z`, `[batch, n, Q, d]`, and has no
/// graph by its type: were it not detached, `z_i − E_gen` would be constant and the gradient zero.
/// `advantages` is `[batch, n]`.
pub fn rank<B: AutodiffBackend>(
    general: Tensor<B, 3>,
    explored: Tensor<B::InnerBackend, 4>,
    advantages: Tensor<B::InnerBackend, 2>,
    log_sigma: Tensor<B, 1>,
) -> Tensor<B, 1> {
    let [batch, noises, tokens, width] = explored.dims();
    assert_eq!(general.dims(), [batch, tokens, width], "E_gen against z");
    assert_eq!(advantages.dims(), [batch, noises], "advantages against z");
    let explored = Tensor::<B, 4>::from_inner(explored);
    let difference = explored - general.unsqueeze_dim::<4>(1);
    let squares = difference.powi_scalar(2).mean_dim(3).mean_dim(2);
    let constant = 0.5 * (2.0 * std::f32::consts::PI).ln();
    let log_sigma = log_sigma.reshape([1, 1]);
    let precision = log_sigma.clone().mul_scalar(-2.0).exp();
    let log_density = squares.reshape([batch, noises]).mul_scalar(-0.5) * precision
        - log_sigma.add_scalar(constant);
    (log_density * Tensor::from_inner(advantages)).mean().neg()
}

/// The reward's own gradient in place of `L_rank` (ours): `−⟨sg(∂R/∂E_gen), E_gen⟩`, averaged over the batch and less its
/// own value, which means nothing; `[1]`. Both operands are `[batch, Q, d]`.
pub fn direct_rank<B: AutodiffBackend>(
    general: Tensor<B, 3>,
    gradient: Tensor<B::InnerBackend, 3>,
) -> Tensor<B, 1> {
    let [batch, ..] = general.dims();
    let here = Tensor::from_inner(general.clone().inner());
    let along = (general - here) * Tensor::from_inner(gradient);
    along.sum().div_scalar(batch as f32).neg()
}

/// `L_cal = distance(pool(E_gen), p_ret)` (equation 10), both `[batch, d]`.
pub fn calibration<B: Backend>(
    pooled_general: Tensor<B, 2>,
    retrieved: Tensor<B, 2>,
    distance: Distance,
) -> Tensor<B, 1> {
    distance.mean(pooled_general, retrieved)
}

/// `L_sem = distance(pool(E_mm), e_r)` (equation 16), both `[batch, d]`.
pub fn semantic<B: Backend>(
    pooled_multimodal: Tensor<B, 2>,
    reference: Tensor<B, 2>,
    distance: Distance,
) -> Tensor<B, 1> {
    distance.mean(pooled_multimodal, reference)
}
