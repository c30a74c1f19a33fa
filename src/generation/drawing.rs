//! Drawing for samples: each image starts from its sample's own latent, however many are drawn at once.

use burn::tensor::backend::Backend;
use burn::tensor::{Device, Tensor};

use crate::networks::scheduler::SchedulerError;

use super::choice::Choice;
use super::conditioning::TextEncoder;
use super::generator::{GenerateOptions, Generator, Start};
pub use super::noise::Latent;
use super::preference::{Preference, PreferenceModel, Reading};
use super::references::ReferenceLatents;
use super::sample::{Sample, rows};
use super::shift::retrieval_shift;

/// A generator with its text encoder, its noise and its settings.
#[derive(Clone, Copy)]
pub struct Drawing<'a, B: Backend> {
    /// Conditionings to images.
    pub generator: &'a Generator<B>,
    /// Prompts to conditionings.
    pub text: &'a dyn TextEncoder<B>,
    /// Steps and guidance.
    pub options: &'a GenerateOptions,
    /// The references' pictures, where drawing begins with them (`options.strength` below 1).
    pub references: Option<&'a ReferenceLatents<B>>,
    /// Channels, height and width of a latent.
    pub latent_shape: [usize; 3],
    /// Images denoised at once.
    pub images_per_batch: usize,
    /// Where several drawings are made of each sample and one is kept.
    pub choice: Option<Choice<'a, B>>,
    /// Of the initial latents.
    pub seed: u64,
    /// Where the generator lives.
    pub device: &'a Device<B>,
}

impl<B: Backend> Drawing<'_, B> {
    /// One image in [−1, 1] per conditioning; image `i` starts from the latent of `samples[i]`, which all images of a
    /// sample share, or is the one that `choice` keeps of those that start from it and from latents of their own. As
    /// [`Drawing::from_latents`].
    ///
    /// # Shapes
    /// `conditionings` is `[images, Q, d]`; `each` receives `[count, 3, height, width]`.
    ///
    /// # Errors
    /// When the schedule refuses the number of steps.
    pub fn conditionings(
        &self,
        samples: &[&Sample],
        conditionings: Tensor<B, 3>,
        each: impl FnMut(Tensor<B, 4>),
    ) -> Result<(), SchedulerError> {
        if let Some(choice) = self.choice.filter(|choice| choice.candidates > 1) {
            return self.chosen(choice, samples, conditionings, each);
        }
        let latents: Vec<Latent<'_>> = samples.iter().map(|s| Latent::shared(s)).collect();
        self.from_latents(&latents, conditionings, each)
    }

    /// The image of each sample that `choice` keeps.
    fn chosen(
        &self,
        choice: Choice<'_, B>,
        samples: &[&Sample],
        conditionings: Tensor<B, 3>,
        mut each: impl FnMut(Tensor<B, 4>),
    ) -> Result<(), SchedulerError> {
        let candidates = choice.candidates;
        let [_, tokens, width] = conditionings.dims();
        let at_once = (self.images_per_batch / candidates).max(1);
        for (index, samples) in samples.chunks(at_once).enumerate() {
            let own = conditionings
                .clone()
                .narrow(0, index * at_once, samples.len());
            let repeated = own
                .unsqueeze_dim::<4>(1)
                .expand([samples.len(), candidates, tokens, width])
                .reshape([samples.len() * candidates, tokens, width]);
            let latents: Vec<Latent<'_>> = samples
                .iter()
                .flat_map(|sample| {
                    let others = (1..candidates).map(|number| Latent::own(sample, number, 0));
                    std::iter::once(Latent::shared(sample)).chain(others)
                })
                .collect();
            let mut drawn = Vec::new();
            self.from_latents(&latents, repeated, |images| drawn.push(images))?;
            let drawn = Tensor::cat(drawn, 0);
            let best = choice.chooser.choose(samples, candidates, drawn.clone());
            let kept = best.iter().enumerate().map(|(row, place)| {
                let image = row * candidates + place;
                drawn.clone().narrow(0, image, 1)
            });
            each(Tensor::cat(kept.collect(), 0));
        }
        Ok(())
    }

    /// One image in [−1, 1] per conditioning; image `i` starts from `latents[i]`. `each` receives the images batch by
    /// batch, in order, so that a long list need not stand in memory.
    ///
    /// # Shapes
    /// `conditionings` is `[images, Q, d]`; `each` receives `[count, 3, height, width]`.
    ///
    /// # Errors
    /// When the schedule refuses the number of steps.
    pub fn from_latents(
        &self,
        latents: &[Latent<'_>],
        conditionings: Tensor<B, 3>,
        mut each: impl FnMut(Tensor<B, 4>),
    ) -> Result<(), SchedulerError> {
        let empty = self.text.encode(&[""]).states;
        for (index, chunk) in latents.chunks(self.images_per_batch.max(1)).enumerate() {
            let start = index * self.images_per_batch.max(1);
            let (seed, shape, device) = (self.seed, self.latent_shape, self.device);
            let noise = |of: &dyn Fn(&Latent<'_>) -> Tensor<B, 4>| {
                Tensor::cat(chunk.iter().map(of).collect(), 0)
            };
            each(self.generator.generate(
                conditionings.clone().narrow(0, start, chunk.len()),
                empty.clone(),
                Start {
                    noise: noise(&|latent| latent.initial(seed, shape, device)),
                    pictures: self.references.and_then(|references| {
                        references.of(&chunk.iter().map(Latent::sample).collect::<Vec<_>>())
                    }),
                },
                &|index| noise(&|latent| latent.sampling(seed, index, shape, device)),
                self.options,
            )?);
        }
        Ok(())
    }

    /// Images of plain prompts, one per sample.
    ///
    /// # Errors
    /// As [`Drawing::conditionings`].
    pub fn prompts(
        &self,
        samples: &[&Sample],
        prompts: &[&str],
        each: impl FnMut(Tensor<B, 4>),
    ) -> Result<(), SchedulerError> {
        self.conditionings(samples, self.text.encode(prompts).states, each)
    }

    /// The personalised images: `generator(E_gen)`.
    ///
    /// # Errors
    /// As [`Drawing::conditionings`].
    pub fn personalised(
        &self,
        model: &PreferenceModel<B>,
        samples: &[&Sample],
        each: impl FnMut(Tensor<B, 4>),
    ) -> Result<(), SchedulerError> {
        self.conditionings(samples, self.preference(model, samples).general, each)
    }

    /// What `model` makes of the samples.
    pub fn preference(&self, model: &PreferenceModel<B>, samples: &[&Sample]) -> Preference<B> {
        let prompts: Vec<&str> = samples.iter().map(|s| s.global_prompt.as_str()).collect();
        let ids: Vec<&[u32]> = samples
            .iter()
            .map(|s| s.preference_ids.as_slice())
            .collect();
        model.forward(&Reading {
            prompts: &ids,
            global: self.text.encode(&prompts).states,
            retrieved: rows(samples, |s| &s.retrieved_preference, self.device),
            shift: model
                .takes_shift()
                .then(|| retrieval_shift(samples, self.text)),
        })
    }
}
