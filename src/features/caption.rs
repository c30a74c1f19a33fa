//! Captions of items.
