//! Down, mid and up blocks.
