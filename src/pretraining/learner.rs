//! Parts of a module that learn at rates of their own.

use burn::module::{AutodiffModule, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{Device, Tensor};

use crate::optimisation::parameters::{NamedTensors, ParameterError, paths};
use crate::optimisation::{AdamW, AdamWConfig, Schedule};

/// A part of a module, and how it learns.
#[derive(Debug, Clone, Copy)]
pub struct Learner<'a> {
    /// What the paths of its parameters begin with.
    pub prefix: &'static str,
    pub optimizer: &'a AdamWConfig,
    /// Its learning rate from `first_step` on.
    pub schedule: &'a Schedule,
    /// The step in which it begins to learn; gradients before it are not used.
    pub first_step: usize,
}

/// Optimisers of all parts of a module, each with moments, clipping and bias corrections of its own.
pub(super) struct Learners<'a, B: AutodiffBackend> {
    all: Vec<(Learner<'a>, AdamW<B>)>,
}

impl<'a, B: AutodiffBackend> Learners<'a, B> {
    pub(super) fn new(learners: &[Learner<'a>]) -> Self {
        let fresh = |learner: &Learner<'a>| (*learner, AdamW::new(learner.optimizer.clone()));
        Self {
            all: learners.iter().map(fresh).collect(),
        }
    }

    /// One update of `module` in step `step` of `steps`; of the first part that learns in it, the norm of the gradients before clipping `[1]` and the rate.
    pub(super) fn step<M: AutodiffModule<B>>(
        &mut self,
        mut module: M,
        mut gradients: B::Gradients,
        step: usize,
        steps: usize,
    ) -> (M, Option<(Tensor<B::InnerBackend, 1>, f64)>) {
        let places = paths::<B, M>(&module);
        let mut first = None;
        for (learner, optimizer) in &mut self.all {
            if step < learner.first_step {
                continue;
            }
            let own: Vec<ParamId> = places
                .iter()
                .filter(|(_, path)| path.starts_with(learner.prefix))
                .map(|(id, _)| *id)
                .collect();
            let own = GradientsParams::from_params(&mut gradients, &module, &own);
            let rate = learner
                .schedule
                .rate(step - learner.first_step, steps - learner.first_step);
            let (updated, norm) = optimizer.apply(module, own, rate);
            module = updated;
            first.get_or_insert((norm, rate));
        }
        (module, first)
    }

    /// The moments of all parts, by parameter names, as [`AdamW::state`] has them.
    pub(super) fn state<M: AutodiffModule<B>>(&self, module: &M) -> NamedTensors {
        let states = self.all.iter();
        states
            .flat_map(|(_, optimizer)| optimizer.state(module))
            .collect()
    }

    /// Takes up what [`Learners::state`] gave after `step` steps.
    ///
    /// # Errors
    /// When a parameter has a first moment and no second.
    pub(super) fn restore<M: AutodiffModule<B>>(
        &mut self,
        module: &M,
        tensors: &NamedTensors,
        step: usize,
        device: &Device<B::InnerBackend>,
    ) -> Result<(), ParameterError> {
        for (learner, optimizer) in &mut self.all {
            let own = |name: &str| {
                let path = name.split_once('.').map_or("", |(_, path)| path);
                path.starts_with(learner.prefix)
            };
            let own: NamedTensors = tensors
                .iter()
                .filter(|(name, _)| own(name))
                .map(|(name, tensor)| (name.clone(), tensor.clone()))
                .collect();
            let taken = step.saturating_sub(learner.first_step);
            optimizer.restore(module, &own, taken, device)?;
        }
        Ok(())
    }
}
