//! Which sampler: as the hub's files name it, and as a run's configuration chooses it.

use serde::{Deserialize, Serialize};

use super::config::SchedulerConfig;

/// The samplers, under diffusers' names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SchedulerClass {
    /// Song et al., 2021, without noise on the way.
    Ddim,
    /// Liu et al., 2022.
    Pndm,
    /// Lu et al., 2022: the multistep DPM-Solver++.
    DpmSolver,
    /// Karras et al., 2022, algorithm 2 without churn.
    Euler,
    /// Zhao et al., 2023.
    UniPc,
    /// Luo et al., 2023: latent consistency models.
    Lcm,
}

impl SchedulerClass {
    /// Every sampler there is.
    pub const ALL: [Self; 6] = [
        Self::Ddim,
        Self::Pndm,
        Self::DpmSolver,
        Self::Euler,
        Self::UniPc,
        Self::Lcm,
    ];

    /// The hub's `_class_name`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ddim => "DDIMScheduler",
            Self::Pndm => "PNDMScheduler",
            Self::DpmSolver => "DPMSolverMultistepScheduler",
            Self::Euler => "EulerDiscreteScheduler",
            Self::UniPc => "UniPCMultistepScheduler",
            Self::Lcm => "LCMScheduler",
        }
    }

    /// The class of that `_class_name`. `DDPMScheduler`, which files name for training, is sampled by DDIM.
    pub fn named(name: &str) -> Option<Self> {
        let name = match name {
            "DDPMScheduler" => "DDIMScheduler",
            other => other,
        };
        Self::ALL.into_iter().find(|class| class.name() == name)
    }

    /// The known names in one line.
    pub fn known() -> String {
        Self::ALL.map(Self::name).join(", ")
    }
}

/// How a run samples: as the pipeline's own file says, or by another sampler over the same noise schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SchedulerChoice {
    /// The sampler of the pipeline's `scheduler_config.json`.
    #[default]
    Pipeline,
    /// DDIM.
    Ddim,
    /// PNDM without Runge–Kutta steps: one call more than steps.
    Pndm,
    /// DPM-Solver++ of second order.
    #[serde(rename = "dpm-solver++")]
    DpmSolver,
    /// The same over the noise levels of Karras et al.
    #[serde(rename = "dpm-solver++-karras")]
    DpmSolverKarras,
    /// Euler's method.
    Euler,
    /// The same over the noise levels of Karras et al.
    EulerKarras,
    /// UniPC of second order.
    #[serde(rename = "unipc")]
    UniPc,
    /// Latent consistency; for networks distilled for it.
    Lcm,
}

impl SchedulerChoice {
    /// `config` with this sampler in place of its own; the betas, the prediction and the spacing stay.
    pub fn over(self, config: &SchedulerConfig) -> SchedulerConfig {
        let (class, karras) = match self {
            Self::Pipeline => return config.clone(),
            Self::Ddim => (SchedulerClass::Ddim, false),
            Self::Pndm => (SchedulerClass::Pndm, false),
            Self::DpmSolver => (SchedulerClass::DpmSolver, false),
            Self::DpmSolverKarras => (SchedulerClass::DpmSolver, true),
            Self::Euler => (SchedulerClass::Euler, false),
            Self::EulerKarras => (SchedulerClass::Euler, true),
            Self::UniPc => (SchedulerClass::UniPc, false),
            Self::Lcm => (SchedulerClass::Lcm, false),
        };
        SchedulerConfig {
            class,
            num_train_timesteps: config.num_train_timesteps,
            beta_start: config.beta_start,
            beta_end: config.beta_end,
            beta_schedule: config.beta_schedule,
            trained_betas: config.trained_betas.clone(),
            clip_sample: config.clip_sample,
            clip_sample_range: config.clip_sample_range,
            set_alpha_to_one: config.set_alpha_to_one,
            steps_offset: config.steps_offset,
            prediction_type: config.prediction_type,
            timestep_spacing: config.timestep_spacing,
            rescale_betas_zero_snr: config.rescale_betas_zero_snr,
            use_karras_sigmas: karras,
            skip_prk_steps: true,
            ..SchedulerConfig::of(class)
        }
    }

    /// Is it the pipeline's own?
    pub fn is_pipeline(&self) -> bool {
        *self == Self::Pipeline
    }
}
