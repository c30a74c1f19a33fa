//! Half-split rotary position embeddings.
