//! BLIP-2 configuration.
