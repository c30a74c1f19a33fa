//! AdamW with global-norm clipping.
