//! Drawing with a graph over the last calls of the network, for gradients with respect to the conditioning.

use burn::module::{AutodiffModule as _, Module as _};
use burn::tensor::Tensor;
use burn::tensor::backend::AutodiffBackend;

use super::{Calls, GenerateOptions, Generator, Start};
use crate::networks::diffusion::{AutoencoderKl, UNet2DConditionModel};
use crate::networks::scheduler::{SchedulerError, StepNoise};

impl<B: AutodiffBackend> Generator<B> {
    /// The same generator where a graph is recorded. Its weights are shared, not copied, and do not train.
    pub fn tracked(generator: &Generator<B::InnerBackend>) -> Self {
        Self {
            unet: UNet2DConditionModel::from_inner(generator.unet.clone()).no_grad(),
            vae: AutoencoderKl::from_inner(generator.vae.clone()).no_grad(),
            scheduler: generator.scheduler.clone(),
        }
    }

    /// As [`generate`](Self::generate), the same image to rounding, with the graph of `conditioning` through the last
    /// `tracked_calls` calls of the network (all, if there are no more) and the decoder. `earlier`, the same networks
    /// without a graph, makes the calls before them: there the conditioning counts as a constant (DRaFT-K, Clark et
    /// al., 2024).
    ///
    /// # Errors
    /// When the sampler refuses the schedule or the number of steps.
    #[allow(clippy::too_many_arguments)]
    pub fn generate_tracked(
        &self,
        earlier: &Generator<B::InnerBackend>,
        conditioning: Tensor<B, 3>,
        unconditional: Tensor<B::InnerBackend, 3>,
        start: Start<B::InnerBackend>,
        noise: StepNoise<'_, B::InnerBackend>,
        options: &GenerateOptions,
        tracked_calls: usize,
    ) -> Result<Tensor<B, 4>, SchedulerError> {
        let scheduler = options.scheduler.over(&self.scheduler);
        let mut sampler = scheduler.sampler::<B>(options.num_steps)?;
        let timesteps = sampler.timesteps().to_vec();
        let first_tracked = timesteps.len().saturating_sub(tracked_calls);
        let plain = Calls::new(
            earlier,
            conditioning.clone().inner(),
            unconditional.clone(),
            &timesteps,
            options,
        );
        let empty = Tensor::from_inner(unconditional);
        let tracked = Calls::new(self, conditioning, empty, &timesteps, options);
        let noise = |index: usize| Tensor::from_inner(noise(index));
        let start = Start {
            noise: Tensor::from_inner(start.noise),
            pictures: start.pictures.map(Tensor::from_inner),
        };
        let (first, mut latents) = start.sample(&*sampler, scheduler.class.name(), options)?;
        for index in first..timesteps.len() {
            let input = sampler.scale_input(latents.clone(), index);
            let output = match index < first_tracked {
                true => Tensor::from_inner(plain.predict(index, input.inner())),
                false => tracked.predict(index, input),
            };
            latents = sampler.step(output, index, latents, &noise);
        }
        Ok(self.decode(latents))
    }
}
