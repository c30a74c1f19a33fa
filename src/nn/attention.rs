//! Scaled dot-product attention shared by the networks.
