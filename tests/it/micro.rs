//! Micro.
