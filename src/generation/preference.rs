//! Preference prompt and its hidden states.
