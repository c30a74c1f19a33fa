//! Llama decoder block.
