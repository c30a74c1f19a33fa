//! CLIP text tower.
