//! CLIP from a hub folder.
