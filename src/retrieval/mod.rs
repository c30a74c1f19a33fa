//! The retrieval module (paper Sec. 3.1): which history items matter for the reference, and what they
//! look like together. No trained parameters, no network: embeddings in, a preference out.

pub mod correlation;
pub mod fusion;

pub use correlation::{Retrieved, retrieve};
pub use fusion::{Normaliser, RetrievalConfig, RetrievedPreference, fuse};
