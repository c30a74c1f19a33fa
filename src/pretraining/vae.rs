//! VAE pretraining.
