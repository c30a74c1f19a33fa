//! Initial weights from a seed, equal on every backend (Burn draws its own on the device).

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// `module` with the weights of its linear layers and convolutions drawn from the uniform distribution within
/// ±1/√(inputs), PyTorch's default, and biases of zero. Norms and bare parameters stay as they are. Layers for whose
/// path `starts_at_zero` answers yes start at zero: residual branches that first add nothing train faster.
pub fn seeded<B: Backend, M: Module<B>>(
    module: M,
    seed: u64,
    starts_at_zero: impl Fn(&str) -> bool,
) -> M {
    module.map(&mut Seeder {
        random: ChaCha8Rng::seed_from_u64(seed),
        path: Vec::new(),
        starts_at_zero,
    })
}

struct Seeder<F> {
    random: ChaCha8Rng,
    /// Field name and the type that holds it.
    path: Vec<(String, String)>,
    starts_at_zero: F,
}

impl<B: Backend, F: Fn(&str) -> bool> ModuleMapper<B> for Seeder<F> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.push((name.to_string(), container.to_string()));
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let (id, tensor, mapper) = param.consume();
        let (field, container) = match self.path.last() {
            Some((field, container)) => (field.as_str(), container.as_str()),
            None => ("", ""),
        };
        let shape = tensor.dims();
        let count: usize = shape.iter().product();
        let inputs = match container {
            "Struct:Linear" => shape[0],
            "Struct:Conv2d" => count / shape[0],
            _ => return Param::from_mapped_value(id, tensor, mapper),
        };
        let path = self
            .path
            .iter()
            .filter(|(_, container)| !container.starts_with("Enum:"))
            .map(|(field, _)| field.as_str())
            .collect::<Vec<_>>()
            .join(".");
        let bound = if field == "bias" || (self.starts_at_zero)(&path) {
            0.0
        } else {
            (inputs as f32).powf(-0.5)
        };
        let values: Vec<f32> = (0..count)
            .map(|_| bound * self.random.random_range(-1f32..1.0))
            .collect();
        let tracked = tensor.is_require_grad();
        let seeded = Tensor::from_data(TensorData::new(values, shape), &tensor.device())
            .set_require_grad(tracked);
        Param::from_mapped_value(id, seeded, mapper)
    }
}
