//! Residual blocks.
