//! Stable Diffusion from caption and keywords.
