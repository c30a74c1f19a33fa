//! CLIP vision tower.
