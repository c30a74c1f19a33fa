//! AdamW with PyTorch's defaults, global-norm clipping and a state that is saved under parameter names.
//!
//! Burn's own optimisers clip each parameter apart and key their state by ids that change with every
//! start; resuming to equal numbers needs names.

use std::collections::{BTreeMap, HashMap};

use burn::module::{AutodiffModule, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};

use super::parameters::{NamedTensors, ParameterError, paths};

/// Settings of [`AdamW`]; the defaults are PyTorch's, but for the weight decay, which is off.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct AdamWConfig {
    /// Decay of the first moment.
    pub beta_1: f64,
    /// Decay of the second moment.
    pub beta_2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Decoupled weight decay, applied to parameters of two and more dimensions.
    pub weight_decay: f64,
    /// Largest L2 norm of all gradients together; larger ones are scaled down. 0 switches it off.
    pub max_gradient_norm: f64,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self {
            beta_1: 0.9,
            beta_2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.0,
            max_gradient_norm: 1.0,
        }
    }
}

/// First and second moment of one parameter, flattened.
type Moments<B> = (Tensor<B, 1>, Tensor<B, 1>);

/// AdamW (Loshchilov and Hutter, 2019) over every parameter that has a gradient.
#[derive(Debug, Clone)]
pub struct AdamW<B: AutodiffBackend> {
    config: AdamWConfig,
    step: usize,
    moments: HashMap<ParamId, Moments<B::InnerBackend>>,
}

impl<B: AutodiffBackend> AdamW<B> {
    /// An optimiser that has taken no step.
    pub fn new(config: AdamWConfig) -> Self {
        Self {
            config,
            step: 0,
            moments: HashMap::new(),
        }
    }

    /// The number of steps taken.
    pub fn num_steps(&self) -> usize {
        self.step
    }

    /// One update of `module` by the gradients of its loss.
    ///
    /// Returns the module and the global L2 norm of the gradients before clipping (`[1]`, on the
    /// device: reading it synchronises).
    pub fn step<M: AutodiffModule<B>>(
        &mut self,
        module: M,
        gradients: B::Gradients,
        learning_rate: f64,
    ) -> (M, Tensor<B::InnerBackend, 1>) {
        let gradients = GradientsParams::from_grads(gradients, &module);
        self.apply(module, gradients, learning_rate)
    }

    /// As [`AdamW::step`], from gradients that were gathered over several backward passes.
    pub fn apply<M: AutodiffModule<B>>(
        &mut self,
        module: M,
        mut gradients: GradientsParams,
        learning_rate: f64,
    ) -> (M, Tensor<B::InnerBackend, 1>) {
        let mut norm = SquaredNorm::<B> {
            gradients: &gradients,
            sum: None,
        };
        module.visit(&mut norm);
        let device = module.devices().into_iter().next().unwrap_or_default();
        let inner = Tensor::<B, 1>::zeros([1], &device).inner();
        let norm = norm.sum.unwrap_or(inner).sqrt();
        let scale = (self.config.max_gradient_norm > 0.0).then(|| {
            norm.clone()
                .add_scalar(1e-6)
                .recip()
                .mul_scalar(self.config.max_gradient_norm)
                .clamp_max(1.0)
        });
        self.step += 1;
        let module = module.map(&mut Update {
            config: &self.config,
            learning_rate,
            bias_1: 1.0 - self.config.beta_1.powi(self.step as i32),
            bias_2: 1.0 - self.config.beta_2.powi(self.step as i32),
            scale,
            gradients: &mut gradients,
            moments: &mut self.moments,
        });
        (module, norm)
    }

    /// The moments under `first.<path>` and `second.<path>`.
    pub fn state<M: AutodiffModule<B>>(&self, module: &M) -> NamedTensors {
        let mut tensors = BTreeMap::new();
        for (id, path) in paths::<B, M>(module) {
            if let Some((first, second)) = self.moments.get(&id) {
                let host = |t: &Tensor<B::InnerBackend, 1>| t.to_data().convert_dtype(DType::F32);
                tensors.insert(format!("first.{path}"), host(first));
                tensors.insert(format!("second.{path}"), host(second));
            }
        }
        tensors
    }

    /// Takes up the moments that [`AdamW::state`] wrote, after `step` steps.
    ///
    /// # Errors
    /// When a parameter has a first moment and no second.
    pub fn restore<M: AutodiffModule<B>>(
        &mut self,
        module: &M,
        tensors: &NamedTensors,
        step: usize,
        device: &Device<B::InnerBackend>,
    ) -> Result<(), ParameterError> {
        self.step = step;
        self.moments.clear();
        for (id, path) in paths::<B, M>(module) {
            let Some(first) = tensors.get(&format!("first.{path}")) else {
                continue;
            };
            let name = format!("second.{path}");
            let second = tensors.get(&name).ok_or(ParameterError::Missing(name))?;
            let device_tensor =
                |data: &burn::tensor::TensorData| Tensor::from_data(data.clone(), device);
            self.moments
                .insert(id, (device_tensor(first), device_tensor(second)));
        }
        Ok(())
    }
}

struct SquaredNorm<'a, B: AutodiffBackend> {
    gradients: &'a GradientsParams,
    sum: Option<Tensor<B::InnerBackend, 1>>,
}

impl<B: AutodiffBackend> ModuleVisitor<B> for SquaredNorm<'_, B> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        if let Some(gradient) = self.gradients.get::<B::InnerBackend, D>(param.id) {
            let squared = gradient.clone().mul(gradient).sum();
            self.sum = Some(match self.sum.take() {
                Some(sum) => sum + squared,
                None => squared,
            });
        }
    }
}

struct Update<'a, B: AutodiffBackend> {
    config: &'a AdamWConfig,
    learning_rate: f64,
    bias_1: f64,
    bias_2: f64,
    scale: Option<Tensor<B::InnerBackend, 1>>,
    gradients: &'a mut GradientsParams,
    moments: &'a mut HashMap<ParamId, Moments<B::InnerBackend>>,
}

impl<B: AutodiffBackend> ModuleMapper<B> for Update<'_, B> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let (id, tensor, mapper) = param.consume();
        let gradient = self.gradients.remove::<B::InnerBackend, D>(id);
        let Some(gradient) = gradient.filter(|_| tensor.is_require_grad()) else {
            return Param::from_mapped_value(id, tensor, mapper);
        };
        let shape = tensor.dims();
        let count = shape.iter().product::<usize>();
        let config = self.config;
        let mut gradient = gradient.reshape([count]);
        if let Some(scale) = &self.scale {
            gradient = gradient * scale.clone();
        }
        let squared = gradient.clone().mul(gradient.clone());
        let (first, second) = match self.moments.remove(&id) {
            None => (
                gradient.mul_scalar(1.0 - config.beta_1),
                squared.mul_scalar(1.0 - config.beta_2),
            ),
            Some((first, second)) => (
                first.mul_scalar(config.beta_1) + gradient.mul_scalar(1.0 - config.beta_1),
                second.mul_scalar(config.beta_2) + squared.mul_scalar(1.0 - config.beta_2),
            ),
        };
        let root = second
            .clone()
            .sqrt()
            .mul_scalar(1.0 / self.bias_2.sqrt())
            .add_scalar(config.epsilon);
        let update = (first.clone() / root).mul_scalar(self.learning_rate / self.bias_1);
        self.moments.insert(id, (first, second));

        let mut value = tensor.inner();
        if config.weight_decay > 0.0 && D >= 2 {
            value = value.mul_scalar(1.0 - self.learning_rate * config.weight_decay);
        }
        let value = Tensor::from_inner(value - update.reshape(shape)).require_grad();
        Param::from_mapped_value(id, value, mapper)
    }
}
