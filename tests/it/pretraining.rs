//! Pretraining.
