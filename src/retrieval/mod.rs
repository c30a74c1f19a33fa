//! The retrieval module: which history items matter for the reference.

pub mod correlation;
pub mod fusion;
