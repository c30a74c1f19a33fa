//! Captioner.
