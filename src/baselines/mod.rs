//! The methods that RAGAR is compared with.

pub mod stable_diffusion;
