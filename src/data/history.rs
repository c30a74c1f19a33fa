//! Histories and interactions.
