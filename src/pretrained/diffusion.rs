//! Stable Diffusion pipeline from a hub folder.
