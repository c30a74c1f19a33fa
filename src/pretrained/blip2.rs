//! BLIP-2 from a hub folder.
