//! CLIP configuration.
