//! Image embeddings.
