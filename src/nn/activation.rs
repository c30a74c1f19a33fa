//! Activations by their Hugging Face names.
