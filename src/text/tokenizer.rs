//! Tokenisers in Hugging Face layout.
