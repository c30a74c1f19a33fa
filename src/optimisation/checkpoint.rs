//! Checkpoint contract.
