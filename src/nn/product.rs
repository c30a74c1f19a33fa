//! Matrix products of which a side may be a single row.

use burn::tensor::{Tensor, backend::Backend};

/// The most threads that go together on any GPU.
const WIDEST_PLANE: usize = 128;

/// `left · right` over the last two dimensions.
///
/// Burn's GPU backends (CubeCL 0.10) choose a kernel for all sizes between two powers of two by the first that they meet.
/// Those for a single row take multiples of the plane's size alone, and of a transposed `right` the choice does not know the
/// columns: the first other size, the next token's keys for instance, ends the program (tracel-ai/cubecl#1611). There a
/// single row is computed twice and read once.
pub fn product<B: Backend, const D: usize>(
    left: Tensor<B, D>,
    right: Tensor<B, D>,
) -> Tensor<B, D> {
    let [rows, inner] = [left.dims()[D - 2], left.dims()[D - 1]];
    let columns = right.dims()[D - 1];
    let fits = [inner, columns]
        .iter()
        .all(|size| size.is_multiple_of(WIDEST_PLANE));
    if rows != 1 || columns == 1 || fits || !B::name(&left.device()).contains("cubecl") {
        return left.matmul(right);
    }
    let twice = Tensor::cat(vec![left.clone(), left], D - 2);
    twice.matmul(right).narrow(D - 2, 0, 1)
}
