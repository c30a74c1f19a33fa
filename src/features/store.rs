//! Content-addressed feature store.
