//! CLIP similarities.
