//! Fusion Unit.
