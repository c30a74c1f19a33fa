//! Interruption.
