//! Text embeddings of captions.
