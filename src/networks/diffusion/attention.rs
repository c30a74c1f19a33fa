//! UNet transformer blocks.
