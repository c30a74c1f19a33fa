//! Captioner pretraining.
