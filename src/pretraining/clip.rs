//! Contrastive pretraining.
