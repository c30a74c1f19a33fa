//! Llama language model.
