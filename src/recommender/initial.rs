//! Initial parameters, drawn on the host so that every backend starts from the same numbers.

use burn::module::Param;
use burn::nn::{Embedding, Linear};
use burn::tensor::{Device, Tensor, TensorData, backend::Backend};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A stream of initial parameters.
#[derive(Debug)]
pub(super) struct InitialValues<'a, B: Backend> {
    random: ChaCha8Rng,
    device: &'a Device<B>,
}

impl<'a, B: Backend> InitialValues<'a, B> {
    pub fn new(seed: u64, device: &'a Device<B>) -> Self {
        Self {
            random: ChaCha8Rng::seed_from_u64(seed),
            device,
        }
    }

    /// Id embeddings, uniform after Xavier.
    pub fn table(&mut self, rows: usize, width: usize) -> Embedding<B> {
        let bound = (6.0 / (rows + width) as f64).sqrt() as f32;
        embedding(self.uniform([rows, width], bound))
    }

    /// A linear layer, uniform within `±1/√inputs`.
    pub fn linear(&mut self, inputs: usize, outputs: usize, bias: bool) -> Linear<B> {
        let bound = 1.0 / (inputs as f32).sqrt();
        Linear {
            weight: Param::from_tensor(self.uniform([inputs, outputs], bound)),
            bias: bias.then(|| {
                let row = self.uniform([1, outputs], bound);
                Param::from_tensor(row.reshape([outputs]))
            }),
        }
    }

    fn uniform(&mut self, shape: [usize; 2], bound: f32) -> Tensor<B, 2> {
        let values: Vec<f32> = (0..shape[0] * shape[1])
            .map(|_| self.random.random_range(-bound..bound))
            .collect();
        Tensor::from_data(TensorData::new(values, shape), self.device)
    }
}

/// A table as it stands.
pub(super) fn embedding<B: Backend>(table: Tensor<B, 2>) -> Embedding<B> {
    Embedding {
        weight: Param::from_tensor(table),
    }
}
