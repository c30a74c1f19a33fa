//! Noise schedules and samplers of latent diffusion. Knows no network.
//!
//! [`SchedulerConfig`] is the hub's `scheduler_config.json`; [`SchedulerConfig::sampler`] lays out the steps of the
//! sampler that its `_class_name` names, and [`NoiseSchedule`] is what training needs of it. Every sampler is a
//! [`Sampler`]; each stands in a file of its own.

mod class;
mod config;
mod ddim;
mod dpm_solver;
mod euler;
mod lcm;
mod noise_schedule;
mod pndm;
mod prediction;
mod sampler;
mod sigmas;
mod timesteps;
mod unipc;

pub use class::{SchedulerChoice, SchedulerClass};
pub use config::{
    BetaSchedule, FinalSigma, Interpolation, SchedulerConfig, SchedulerError, TimestepSpacing,
};
pub use ddim::Ddim;
pub use dpm_solver::DpmSolver;
pub use euler::Euler;
pub use lcm::Lcm;
pub use noise_schedule::NoiseSchedule;
pub use pndm::Pndm;
pub use prediction::PredictionType;
pub use sampler::{Sampler, StepNoise};
pub use unipc::UniPc;
