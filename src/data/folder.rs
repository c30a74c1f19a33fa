//! The common folder format.
