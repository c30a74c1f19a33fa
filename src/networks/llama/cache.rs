//! Key/value cache.
