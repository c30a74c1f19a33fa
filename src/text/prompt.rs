//! Prompts of the method.
