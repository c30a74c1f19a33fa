//! Llama configuration.
