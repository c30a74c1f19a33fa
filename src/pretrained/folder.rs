//! Hub folders.
