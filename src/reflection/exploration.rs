//! Exploration around the conditioning.
