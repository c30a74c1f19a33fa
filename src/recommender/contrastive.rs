//! The contrastive loss between one modality's item vectors and the fused ones, with its gradient.
//!
//! For unit rows `z` (modality) and `u` (fused), temperature τ and `s(a, b) = exp(a·b / τ)`:
//! `L = mean_i −log( s(z_i, u_i) / (Σ_{j≠i} s(z_i, z_j) + Σ_j s(z_i, u_j)) )`, one direction only.
//! The gradient is written out, because it needs the items-by-items scores in blocks of rows only, while
//! automatic differentiation would keep all of them.

use burn::tensor::{Tensor, backend::Backend};

use super::config::rows_per_block;

/// The loss and its gradient with respect to both unit tables.
#[derive(Debug, Clone)]
pub struct Contrastive<B: Backend> {
    /// The mean over items, `[1]`.
    pub loss: Tensor<B, 1>,
    /// Gradient for the modality's unit rows, `[items, width]`.
    pub modality_gradient: Tensor<B, 2>,
    /// Gradient for the fused unit rows, `[items, width]`.
    pub fused_gradient: Tensor<B, 2>,
}

/// Loss and gradient for unit rows `modality` and `fused`, both `[items, width]`, in blocks of rows.
///
/// A block's scores are touched as seldom as can be: temperature and shift ride in the product, the division
/// by each row's sum is made on the `width` columns of its result.
pub fn contrastive<B: Backend>(
    modality: Tensor<B, 2>,
    fused: Tensor<B, 2>,
    temperature: f32,
    block_rows: usize,
) -> Contrastive<B> {
    let [num_items, _] = modality.dims();
    let inverse = 1.0 / temperature;
    let block_rows = rows_per_block(block_rows, 2 * num_items);
    // Both kinds of partner in one table: the modality's own rows, then the fused rows.
    let partners = Tensor::cat(vec![modality.clone(), fused.clone()], 0);
    // Shifted by 1/τ, the largest possible exponent, so that a low temperature cannot overflow: a further
    // column that holds −1/τ on one side and 1 on the other.
    let ones = partners.clone().narrow(1, 0, 1).ones_like();
    let scaled = Tensor::cat(
        vec![
            modality.clone() * inverse,
            ones.clone().narrow(0, 0, num_items) * -inverse,
        ],
        1,
    );
    let partners_transposed = Tensor::cat(vec![partners.clone(), ones], 1).transpose();

    let mut losses = Vec::new();
    let mut row_gradients = Vec::new();
    let mut partner_gradient = partners.zeros_like();
    for start in (0..num_items).step_by(block_rows) {
        let end = (start + block_rows).min(num_items);
        let rows = modality.clone().slice([start..end]);
        let matching = fused.clone().slice([start..end]);
        let scores = scaled
            .clone()
            .slice([start..end])
            .matmul(partners_transposed.clone())
            .exp();
        let own = (((rows.clone() * rows.clone()).sum_dim(1) - 1.0) * inverse).exp();
        let positive = ((rows.clone() * matching.clone()).sum_dim(1) - 1.0) * inverse;
        let total = scores.clone().sum_dim(1) - own.clone();
        losses.push((total.clone().log() - positive).sum());

        // The item's own score stands in `scores` but not in the loss: taken out once as a row, once as a partner.
        let own_part = rows.clone() * (own * 2.0);
        let drawn = scores.clone().matmul(partners.clone()) - own_part;
        row_gradients.push(drawn / total.clone() - matching);
        partner_gradient = partner_gradient + scores.transpose().matmul(rows / total);
    }
    let scale = inverse / num_items as f32;
    let as_partner = partner_gradient.clone().slice([0..num_items]);
    let as_fused = partner_gradient.slice([num_items..2 * num_items]);
    Contrastive {
        loss: Tensor::cat(losses, 0).sum() / num_items as f32,
        modality_gradient: (Tensor::cat(row_gradients, 0) + as_partner) * scale,
        fused_gradient: (as_fused - modality) * scale,
    }
}
