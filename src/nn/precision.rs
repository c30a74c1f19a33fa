//! A network in another floating-point type.

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::backend::Backend;
use burn::tensor::{FloatDType, Tensor};

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
