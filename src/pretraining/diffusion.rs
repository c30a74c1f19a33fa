//! UNet pretraining.
