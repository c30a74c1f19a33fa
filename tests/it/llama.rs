//! Llama.
