//! Sinusoidal timestep embeddings.
