//! Noise schedules and samplers of latent diffusion. Knows no network.

pub mod config;
pub mod ddim;
pub mod noise_schedule;

pub use config::{BetaSchedule, PredictionType, SchedulerConfig, SchedulerError, TimestepSpacing};
pub use ddim::Ddim;
pub use noise_schedule::NoiseSchedule;
