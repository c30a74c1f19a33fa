//! How much signal is left at every training step, and what follows from it while training.

use burn::tensor::{Device, Tensor, TensorData, backend::Backend};

use super::config::{BetaSchedule, SchedulerConfig, SchedulerError};
use super::prediction::PredictionType;

/// What the samplers of higher order take for a schedule's end without any signal, lest its noise level be infinite.
const LEAST_ALPHA: f64 = 1.0 / 16_777_216.0;

/// The cumulated products `ᾱ_t` of a schedule.
#[derive(Debug, Clone)]
pub struct NoiseSchedule {
    alphas_cumprod: Vec<f64>,
    prediction_type: PredictionType,
}

impl NoiseSchedule {
    /// The schedule that `config` describes.
    ///
    /// # Errors
    /// When the configuration is not supported.
    pub fn new(config: &SchedulerConfig) -> Result<Self, SchedulerError> {
        config.validate()?;
        let mut kept = 1.0;
        let mut alphas_cumprod: Vec<f64> = betas(config)
            .into_iter()
            .map(|beta| {
                kept *= 1.0 - beta;
                kept
            })
            .collect();
        if config.rescale_betas_zero_snr {
            let first = alphas_cumprod[0].sqrt();
            let last = alphas_cumprod[alphas_cumprod.len() - 1].sqrt();
            for alpha in &mut alphas_cumprod {
                *alpha = ((alpha.sqrt() - last) * first / (first - last)).powi(2);
            }
        }
        Ok(Self {
            alphas_cumprod,
            prediction_type: config.prediction_type,
        })
    }

    /// Number of training steps.
    pub fn num_train_timesteps(&self) -> usize {
        self.alphas_cumprod.len()
    }

    /// `ᾱ_t`, the fraction of the signal's power left at training step `timestep`.
    pub fn alpha_cumprod(&self, timestep: usize) -> f64 {
        self.alphas_cumprod[timestep]
    }

    /// The same, but never nothing.
    pub(super) fn least_signal(&self, timestep: usize) -> f64 {
        match self.alphas_cumprod[timestep] {
            0.0 => LEAST_ALPHA,
            alpha => alpha,
        }
    }

    /// Refuses to look for the noise in a sample that is nothing else, which leaves the clean sample undefined.
    ///
    /// # Errors
    /// When that is asked of `timestep`.
    pub fn check_first_step(&self, timestep: usize) -> Result<(), SchedulerError> {
        let undefined =
            self.prediction_type == PredictionType::Epsilon && self.alpha_cumprod(timestep) == 0.0;
        if undefined {
            return Err(SchedulerError::Unsupported {
                key: "prediction_type",
                found: format!("epsilon, and no signal is left at step {timestep}"),
                supported: "v_prediction or sample with `rescale_betas_zero_snr`".into(),
            });
        }
        Ok(())
    }

    /// Signal-to-noise ratio `ᾱ / (1 − ᾱ)` of training step `timestep`.
    pub fn signal_to_noise(&self, timestep: usize) -> f64 {
        let alpha = self.alphas_cumprod[timestep];
        alpha / (1.0 - alpha)
    }

    /// `√ᾱ · sample + √(1 − ᾱ) · noise`, each row at its own step.
    pub fn add_noise<B: Backend>(
        &self,
        sample: Tensor<B, 4>,
        noise: Tensor<B, 4>,
        timesteps: &[usize],
    ) -> Tensor<B, 4> {
        let (signal, spread) = self.coefficients(timesteps, &sample.device());
        sample * signal + noise * spread
    }

    /// What the network should predict for these rows.
    pub fn target<B: Backend>(
        &self,
        sample: Tensor<B, 4>,
        noise: Tensor<B, 4>,
        timesteps: &[usize],
    ) -> Tensor<B, 4> {
        match self.prediction_type {
            PredictionType::Epsilon => noise,
            PredictionType::Sample => sample,
            PredictionType::VPrediction => {
                let (signal, spread) = self.coefficients(timesteps, &sample.device());
                noise * signal - sample * spread
            }
        }
    }

    /// The clean sample that the network's `output` for `noised` means, each row at its own step. Not finite where noise is predicted of a sample that is
    /// nothing else.
    pub fn clean<B: Backend>(
        &self,
        noised: Tensor<B, 4>,
        output: Tensor<B, 4>,
        timesteps: &[usize],
    ) -> Tensor<B, 4> {
        let (of_sample, of_output) = self.columns(timesteps, &noised.device(), |alpha| {
            let (signal, spread) = (alpha.sqrt(), (1.0 - alpha).sqrt());
            self.prediction_type.clean(signal, spread)
        });
        noised * of_sample + output * of_output
    }

    /// Weight of the squared error at `timestep` (Hang et al., 2023): the error of the implied clean sample counts
    /// `min(ratio, gamma)`, and one more where velocity is predicted, lest the steps of pure noise count nothing.
    pub fn loss_weight(&self, timestep: usize, gamma: f64) -> f64 {
        let ratio = self.signal_to_noise(timestep);
        match self.prediction_type {
            PredictionType::Epsilon => (gamma / ratio).min(1.0),
            PredictionType::Sample => ratio.min(gamma),
            PredictionType::VPrediction => (ratio.min(gamma) + 1.0) / (ratio + 1.0),
        }
    }

    fn coefficients<B: Backend>(
        &self,
        timesteps: &[usize],
        device: &Device<B>,
    ) -> (Tensor<B, 4>, Tensor<B, 4>) {
        self.columns(timesteps, device, |alpha| {
            [alpha.sqrt(), (1.0 - alpha).sqrt()]
        })
    }

    /// Two weights of each row, from its ᾱ, `[rows, 1, 1, 1]` each.
    fn columns<B: Backend>(
        &self,
        timesteps: &[usize],
        device: &Device<B>,
        weights: impl Fn(f64) -> [f64; 2],
    ) -> (Tensor<B, 4>, Tensor<B, 4>) {
        let pairs = timesteps.iter().map(|&t| weights(self.alphas_cumprod[t]));
        let (first, second): (Vec<f32>, Vec<f32>) =
            pairs.map(|[a, b]| (a as f32, b as f32)).unzip();
        let column = |values: Vec<f32>| {
            let shape = [values.len(), 1, 1, 1];
            Tensor::from_data(TensorData::new(values, shape), device)
        };
        (column(first), column(second))
    }
}

fn betas(config: &SchedulerConfig) -> Vec<f64> {
    if let Some(betas) = &config.trained_betas {
        return betas.clone();
    }
    let count = config.num_train_timesteps;
    let between = |start: f64, end: f64| {
        let spread = (count.max(2) - 1) as f64;
        (0..count).map(move |i| start + (end - start) * i as f64 / spread)
    };
    match config.beta_schedule {
        BetaSchedule::Linear => between(config.beta_start, config.beta_end).collect(),
        BetaSchedule::ScaledLinear => between(config.beta_start.sqrt(), config.beta_end.sqrt())
            .map(|root| root * root)
            .collect(),
        BetaSchedule::SquaredCosine => {
            let kept = |place: f64| {
                ((place + 0.008) / 1.008 * std::f64::consts::FRAC_PI_2)
                    .cos()
                    .powi(2)
            };
            (0..count)
                .map(|i| {
                    let (from, to) = (i as f64 / count as f64, (i + 1) as f64 / count as f64);
                    (1.0 - kept(to) / kept(from)).min(0.999)
                })
                .collect()
        }
    }
}
