//! Keyword lists: parsing and pooling.
