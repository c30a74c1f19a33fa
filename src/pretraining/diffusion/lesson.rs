//! What a step teaches.

use burn::tensor::Tensor;
use burn::tensor::backend::AutodiffBackend;
use rand_chacha::ChaCha8Rng;

use super::super::trainer::Parts;
use super::DiffusionPretrainingConfig;
use super::adversary::{Adversary, Contest};
use super::batch::{Batch, steps_tensor};
use super::cache::Cache;
use crate::networks::scheduler::NoiseSchedule;

/// What steps are drawn from.
pub(super) struct Lessons<'a, D> {
    pub(super) config: &'a DiffusionPretrainingConfig,
    pub(super) cache: &'a Cache,
    pub(super) schedule: &'a NoiseSchedule,
    pub(super) adversary: &'a Adversary,
    pub(super) device: &'a D,
}

impl<D> Lessons<'_, D> {
    /// The loss of step `step`, `[1]`, and its parts: the squared error of what the network predicts; how far the clean samples that this means for the judged rows are
    /// from being named rightly; what the recognisers learn.
    pub(super) fn loss<B: AutodiffBackend<Device = D>>(
        &self,
        contest: &Contest<B>,
        step: usize,
    ) -> (Tensor<B, 1>, Parts<B>) {
        let (config, cache, schedule) = (self.config, self.cache, self.schedule);
        let (adversary, device) = (self.adversary, self.device);
        let mut batch = Batch::draw(config, cache, schedule, step);
        let recognisers = |made: Option<&Tensor<B, 4>>, random: &mut ChaCha8Rng| {
            let count = config.adversarial.num_real;
            let images = cache.draw(count, config.extra_share, step, config.seed + 3);
            let real = cache.latents::<B>(&images, device);
            adversary.lesson(contest, real, &images, made, random)
        };
        if adversary.alone(step) {
            return (recognisers(None, &mut batch.random), Vec::new());
        }
        let (noised, target, weight) = batch.tensors::<B>(cache, schedule, device);
        let context = cache.contexts::<B>(&batch.prompts, device);
        let timestep = steps_tensor::<B>(&batch.timesteps, device);
        let predicted = contest.network.forward(noised.clone(), timestep, context);
        let loss = ((predicted.clone() - target).powi_scalar(2) * weight).mean();
        let judged = batch.num_judged;
        if contest.recognisers.is_empty() || judged == 0 {
            return (loss, Vec::new());
        }
        let made = schedule.clean(
            noised.narrow(0, 0, judged),
            predicted.narrow(0, 0, judged),
            &batch.timesteps[..judged],
        );
        let images = &batch.images[..judged];
        let mut parts = vec![("squared_error", loss.clone())];
        parts.extend(adversary.verdicts(contest, &made, images, &mut batch.random));
        parts.push(("recognisers", recognisers(Some(&made), &mut batch.random)));
        let further = parts[1..].iter().map(|(_, part)| part.clone());
        (further.fold(loss, |sum, part| sum + part), parts)
    }
}
