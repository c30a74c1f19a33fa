//! The three losses.
