//! Diffusion configurations.
