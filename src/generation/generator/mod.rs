//! The frozen image generator (method, equation 12): conditioning in, images out. It runs without a graph.

use burn::tensor::{DType, Device, Tensor, TensorData, backend::Backend};
use serde::{Deserialize, Serialize};

use crate::networks::diffusion::{AutoencoderKl, PromptStates, TimeStates, UNet2DConditionModel};
use crate::networks::scheduler::{
    Sampler, SchedulerChoice, SchedulerConfig, SchedulerError, StepNoise,
};
use crate::nn::host::over_rows;

mod tracked;

/// Latent pixels decoded at once: four images of 512².
pub const LATENT_PIXELS_DECODED: usize = 4 * 64 * 64;

/// How an image is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GenerateOptions {
    /// Denoising steps.
    pub num_steps: usize,
    /// How far to go from the unconditional prediction through the conditional one and beyond; 1 asks the network
    /// for the conditional prediction only, at half the cost.
    pub guidance_scale: f64,
    /// How much of the guided prediction is brought back to the conditional one's deviation (Lin et al., 2023; diffusers'
    /// `guidance_rescale`): 0 leaves it as it is. For schedules that end in pure noise, where guidance overexposes.
    #[serde(skip_serializing_if = "is_zero")]
    pub guidance_rescale: f64,
    /// The sampler; that of the pipeline's own file unless chosen.
    pub scheduler: SchedulerChoice,
    /// Which part of the way from noise to image is gone where the reference's picture is at hand (image to image; Meng et
    /// al., 2022, diffusers' `strength`): 1 begins at pure noise, less keeps more of the picture.
    #[serde(skip_serializing_if = "is_whole")]
    pub strength: f64,
}

/// Is nothing of the way left out?
pub fn is_whole(strength: &f64) -> bool {
    *strength == 1.0
}

/// Is a guided prediction left as it is?
pub fn is_zero(guidance_rescale: &f64) -> bool {
    *guidance_rescale == 0.0
}

/// What denoising begins with.
#[derive(Debug, Clone)]
pub struct Start<B: Backend> {
    /// Standard normal noise, `[batch, latent channels, height, width]`.
    pub noise: Tensor<B, 4>,
    /// Scaled latents of pictures, of the same shape, that `strength` keeps a part of.
    pub pictures: Option<Tensor<B, 4>>,
}

impl<B: Backend> From<Tensor<B, 4>> for Start<B> {
    fn from(noise: Tensor<B, 4>) -> Self {
        Self {
            noise,
            pictures: None,
        }
    }
}

impl<B: Backend> Start<B> {
    /// The first sample, and the call of the network that it belongs to.
    fn sample(
        self,
        sampler: &dyn Sampler<B>,
        class: &'static str,
        options: &GenerateOptions,
    ) -> Result<(usize, Tensor<B, 4>), SchedulerError> {
        match self.pictures {
            Some(pictures) if !is_whole(&options.strength) => {
                let first = options.calls_left_out();
                let noised = sampler.noised(pictures, self.noise, first);
                let noised = noised.ok_or(SchedulerError::Beginning {
                    strength: options.strength,
                    class,
                })?;
                Ok((first, noised))
            }
            _ => Ok((0, self.noise.mul_scalar(sampler.initial_scale()))),
        }
    }
}

impl Default for GenerateOptions {
    fn default() -> Self {
        Self {
            num_steps: 50,
            guidance_scale: 7.5,
            guidance_rescale: 0.0,
            scheduler: SchedulerChoice::Pipeline,
            strength: 1.0,
        }
    }
}

impl GenerateOptions {
    /// Calls that `strength` leaves out at the beginning; one is always made.
    fn calls_left_out(&self) -> usize {
        let made = (self.num_steps as f64 * self.strength) as usize;
        self.num_steps - made.clamp(1, self.num_steps)
    }
}

/// A latent diffusion model ready to draw.
#[derive(Debug, Clone)]
pub struct Generator<B: Backend> {
    unet: UNet2DConditionModel<B>,
    vae: AutoencoderKl<B>,
    scheduler: SchedulerConfig,
}

impl<B: Backend> Generator<B> {
    /// A generator of loaded parts.
    pub fn new(
        unet: UNet2DConditionModel<B>,
        vae: AutoencoderKl<B>,
        scheduler: SchedulerConfig,
    ) -> Self {
        Self {
            unet,
            vae,
            scheduler,
        }
    }

    /// The autoencoder.
    pub fn vae(&self) -> &AutoencoderKl<B> {
        &self.vae
    }

    /// Whether it can draw so, said before anything is drawn.
    ///
    /// # Errors
    /// Those of [`denoise`](Self::denoise), and where pictures to begin with would be refused.
    pub fn check(&self, options: &GenerateOptions) -> Result<(), SchedulerError> {
        let scheduler = options.scheduler.over(&self.scheduler);
        let sampler = scheduler.sampler::<B>(options.num_steps)?;
        let anywhere = sampler.mixture(options.calls_left_out()).is_some();
        match anywhere || is_whole(&options.strength) {
            true => Ok(()),
            false => Err(SchedulerError::Beginning {
                strength: options.strength,
                class: scheduler.class.name(),
            }),
        }
    }

    /// Images in [−1, 1] from conditioning and the caller's initial noise.
    ///
    /// # Shapes
    /// `conditioning` `[batch, tokens, width]`, `unconditional` the same or with a batch of one (the empty prompt),
    /// `start` `[batch, latent channels, height, width]` of standard normal noise (and pictures) → `[batch, 3, H, W]`. `noise`
    /// gives more of it to the samplers that put some on between two steps.
    ///
    /// # Errors
    /// When the sampler refuses the schedule or the number of steps.
    pub fn generate(
        &self,
        conditioning: Tensor<B, 3>,
        unconditional: Tensor<B, 3>,
        start: impl Into<Start<B>>,
        noise: StepNoise<'_, B>,
        options: &GenerateOptions,
    ) -> Result<Tensor<B, 4>, SchedulerError> {
        let latents = self.denoise(
            conditioning,
            unconditional,
            start,
            noise,
            options,
            |_, _| (),
        )?;
        Ok(self.decode(latents))
    }

    /// As [`generate`](Self::generate), but stops at the scaled latents; `observe` sees the latents after each call of
    /// the network. Nothing is read back from the device on the way.
    ///
    /// # Errors
    /// When the sampler refuses the schedule or the number of steps.
    pub fn denoise(
        &self,
        conditioning: Tensor<B, 3>,
        unconditional: Tensor<B, 3>,
        start: impl Into<Start<B>>,
        noise: StepNoise<'_, B>,
        options: &GenerateOptions,
        mut observe: impl FnMut(usize, &Tensor<B, 4>),
    ) -> Result<Tensor<B, 4>, SchedulerError> {
        let scheduler = options.scheduler.over(&self.scheduler);
        let mut sampler = scheduler.sampler::<B>(options.num_steps)?;
        let calls = Calls::new(
            self,
            conditioning,
            unconditional,
            sampler.timesteps(),
            options,
        );
        let start = start.into();
        let (first, mut latents) = start.sample(&*sampler, scheduler.class.name(), options)?;
        for index in first..sampler.timesteps().len() {
            let output = calls.predict(index, sampler.scale_input(latents.clone(), index));
            latents = sampler.step(output, index, latents, noise);
            observe(index, &latents);
        }
        Ok(latents)
    }

    /// Scaled latents `[batch, channels, height, width]` of pictures `[batch, 3, H, W]` in [−1, 1]: the means.
    pub fn encode(&self, pictures: Tensor<B, 4>) -> Tensor<B, 4> {
        let dtype = self.vae.decoder.conv_in.weight.val().dtype();
        let latents = self.vae.encode(pictures.cast(dtype)).mean;
        self.vae.scale(latents).cast(DType::F32)
    }

    /// Images in [−1, 1] of scaled latents, few large ones at a time: the decoder's last layers hold hundreds of channels
    /// at the full size of the images, more than everything before them.
    pub fn decode(&self, latents: Tensor<B, 4>) -> Tensor<B, 4> {
        let [batch, _, height, width] = latents.dims();
        let dtype = self.vae.decoder.conv_in.weight.val().dtype();
        let at_once = (LATENT_PIXELS_DECODED / (height * width).max(1)).max(1);
        let decoded = |start: usize| {
            let part = latents.clone().narrow(0, start, at_once.min(batch - start));
            let images = self.vae.decode(self.vae.unscale(part).cast(dtype));
            images.cast(DType::F32).clamp(-1.0, 1.0)
        };
        match batch <= at_once {
            true => decoded(0),
            false => Tensor::cat((0..batch).step_by(at_once).map(decoded).collect(), 0),
        }
    }
}

/// The network's calls of one batch: neither prompt nor times change on the way, so both are read once.
struct Calls<'a, B: Backend> {
    unet: &'a UNet2DConditionModel<B>,
    prompt: PromptStates<B>,
    times: TimeStates<B>,
    /// Images, each twice where `guidance` asks for it.
    batch: usize,
    guidance: Option<f64>,
    rescale: f64,
    dtype: DType,
    device: Device<B>,
}

impl<'a, B: Backend> Calls<'a, B> {
    fn new(
        generator: &'a Generator<B>,
        conditioning: Tensor<B, 3>,
        unconditional: Tensor<B, 3>,
        timesteps: &[f64],
        options: &GenerateOptions,
    ) -> Self {
        let unet = &generator.unet;
        let device = conditioning.device();
        let shape = conditioning.dims();
        let scale = options.guidance_scale;
        let guidance = (scale != 1.0).then_some(scale);
        let context = match guidance {
            Some(_) => Tensor::cat(vec![unconditional.expand(shape), conditioning], 0),
            None => conditioning,
        };
        // The sampler's arithmetic stays in f32; the network may be stored in half precision.
        let dtype = unet.conv_in.weight.val().dtype();
        let steps: Vec<f32> = timesteps.iter().map(|step| *step as f32).collect();
        let steps = TensorData::new(steps, [timesteps.len()]);
        Self {
            prompt: unet.read_prompt(context.cast(dtype)),
            times: unet.read_times(Tensor::from_data(steps, &device)),
            batch: shape[0],
            unet,
            guidance,
            rescale: options.guidance_rescale,
            dtype,
            device,
        }
    }

    /// The guided prediction at call `index`, `[batch, channels, height, width]`.
    fn predict(&self, index: usize, input: Tensor<B, 4>) -> Tensor<B, 4> {
        let (input, rows) = match self.guidance {
            Some(_) => (Tensor::cat(vec![input.clone(), input], 0), 2 * self.batch),
            None => (input, self.batch),
        };
        let output = over_rows(rows, &self.device, |rows| {
            let input = input.clone().narrow(0, rows.start, rows.len());
            let times = self.times.at(index, rows.len());
            let input = input.cast(self.dtype);
            let output = self.unet.predict(input, &times, &self.prompt.rows(rows));
            output.cast(DType::F32)
        });
        let Some(scale) = self.guidance else {
            return output;
        };
        let without = output.clone().narrow(0, 0, self.batch);
        let with = output.narrow(0, self.batch, self.batch);
        let guided = without.clone() + (with.clone() - without).mul_scalar(scale);
        match is_zero(&self.rescale) {
            true => guided,
            false => rescaled(guided, with, self.rescale),
        }
    }
}

/// `guided`, a part of it with the deviation that each image of `conditional` has: diffusers' `rescale_noise_cfg`.
fn rescaled<B: Backend>(
    guided: Tensor<B, 4>,
    conditional: Tensor<B, 4>,
    part: f64,
) -> Tensor<B, 4> {
    let deviation = |prediction: Tensor<B, 4>| {
        let spread = prediction.flatten::<2>(1, 3).var(1).sqrt();
        spread.unsqueeze_dims::<4>(&[2, 3])
    };
    let factor = deviation(conditional) / deviation(guided.clone());
    guided * factor.mul_scalar(part).add_scalar(1.0 - part)
}
