//! BLIP-2 vision tower.
