//! Llama from a hub folder.
