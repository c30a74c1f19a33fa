//! Language-model pretraining.
