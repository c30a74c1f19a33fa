//! A network in another floating-point type, and what must not be computed in half precision.

use burn::module::{Module, ModuleMapper, Param};
use burn::nn::{GroupNorm, LayerNorm};
use burn::tensor::backend::Backend;
use burn::tensor::{DType, FloatDType, Tensor};

struct Cast(FloatDType);

impl<B: Backend> ModuleMapper<B> for Cast {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let dtype = self.0;
        param.map(|values| values.cast(dtype))
    }
}

/// `module` with every float parameter in `dtype`; its inputs must then be of that type too.
pub fn cast_parameters<B: Backend, M: Module<B>>(module: M, dtype: FloatDType) -> M {
    module.map(&mut Cast(dtype))
}

/// `norm` of `input`, computed in f32 whatever both are stored in: means and variances over thousands of values lose
/// too much in half precision, and the reference widens here too.
pub fn widened_norm<B: Backend, const D: usize>(
    norm: &GroupNorm<B>,
    input: Tensor<B, D>,
) -> Tensor<B, D> {
    widened(norm, input, |norm, input| norm.forward(input))
}

/// As [`widened_norm`], over the last dimension: a state of 300 squared is beyond the largest f16.
pub fn widened_layer_norm<B: Backend, const D: usize>(
    norm: &LayerNorm<B>,
    input: Tensor<B, D>,
) -> Tensor<B, D> {
    widened(norm, input, |norm, input| norm.forward(input))
}

fn widened<B: Backend, M: Module<B>, const D: usize>(
    module: &M,
    input: Tensor<B, D>,
    forward: impl Fn(&M, Tensor<B, D>) -> Tensor<B, D>,
) -> Tensor<B, D> {
    match input.dtype() {
        dtype @ (DType::F16 | DType::BF16) => {
            let wide = cast_parameters(module.clone(), FloatDType::F32);
            forward(&wide, input.cast(FloatDType::F32)).cast(dtype)
        }
        _ => forward(module, input),
    }
}
