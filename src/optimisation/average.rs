//! Exponential moving average of a module's parameters.

use std::collections::{HashMap, HashSet};

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::backend::Backend;
use burn::tensor::{DType, Device, Tensor};

use super::parameters::{NamedTensors, ParameterError, paths};

/// The running average of every float parameter. The decay grows with the steps taken,
/// `min(decay, (1 + step) / (10 + step))`, so that the start is soon forgotten.
#[derive(Debug, Clone)]
pub struct ParameterAverage<B: Backend> {
    decay: f64,
    step: usize,
    /// The parameters averaged; all where there is no choice.
    chosen: Option<HashSet<ParamId>>,
    values: HashMap<ParamId, Tensor<B, 1>>,
}

impl<B: Backend> ParameterAverage<B> {
    /// An empty average; the first update copies.
    pub fn new(decay: f64) -> Self {
        Self {
            decay,
            step: 0,
            chosen: None,
            values: HashMap::new(),
        }
    }

    /// The same for some parameters only: those that train over a large frozen network.
    pub fn of(mut self, chosen: HashSet<ParamId>) -> Self {
        self.chosen = Some(chosen);
        self
    }

    /// Takes `module` (without a graph) into the average.
    pub fn update<M: Module<B>>(&mut self, module: &M) {
        let decay = self
            .decay
            .min((1 + self.step) as f64 / (10 + self.step) as f64);
        self.step += 1;
        module.visit(&mut Accumulate {
            decay,
            chosen: self.chosen.as_ref(),
            values: &mut self.values,
        });
    }

    /// `module` with the averaged values in place of its own.
    pub fn apply<M: Module<B>>(&self, module: M) -> M {
        module.map(&mut Replace {
            values: &self.values,
        })
    }

    /// The averages under their parameter paths.
    pub fn state<M: Module<B>>(&self, module: &M) -> NamedTensors {
        paths::<B, M>(module)
            .into_iter()
            .filter_map(|(id, path)| {
                let value = self.values.get(&id)?;
                Some((path, value.to_data().convert_dtype(DType::F32)))
            })
            .collect()
    }

    /// Takes up what [`ParameterAverage::state`] wrote, after `step` updates.
    ///
    /// # Errors
    /// When a parameter has no average.
    pub fn restore<M: Module<B>>(
        &mut self,
        module: &M,
        tensors: &NamedTensors,
        step: usize,
        device: &Device<B>,
    ) -> Result<(), ParameterError> {
        self.step = step;
        self.values.clear();
        for (id, path) in paths::<B, M>(module) {
            if self
                .chosen
                .as_ref()
                .is_some_and(|chosen| !chosen.contains(&id))
            {
                continue;
            }
            let data = tensors.get(&path).ok_or(ParameterError::Missing(path))?;
            self.values
                .insert(id, Tensor::from_data(data.clone(), device));
        }
        Ok(())
    }
}

struct Accumulate<'a, B: Backend> {
    decay: f64,
    chosen: Option<&'a HashSet<ParamId>>,
    values: &'a mut HashMap<ParamId, Tensor<B, 1>>,
}

impl<B: Backend> ModuleVisitor<B> for Accumulate<'_, B> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        if self
            .chosen
            .is_some_and(|chosen| !chosen.contains(&param.id))
        {
            return;
        }
        let value = param.val();
        let count = value.shape().num_elements();
        let value = value.reshape([count]);
        let average = match self.values.remove(&param.id) {
            None => value,
            Some(average) => average.mul_scalar(self.decay) + value.mul_scalar(1.0 - self.decay),
        };
        self.values.insert(param.id, average);
    }
}

struct Replace<'a, B: Backend> {
    values: &'a HashMap<ParamId, Tensor<B, 1>>,
}

impl<B: Backend> ModuleMapper<B> for Replace<'_, B> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let (id, tensor, mapper) = param.consume();
        let tensor = match self.values.get(&id) {
            Some(average) => average.clone().reshape(tensor.dims()),
            None => tensor,
        };
        Param::from_mapped_value(id, tensor, mapper)
    }
}
