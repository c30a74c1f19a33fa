//! The sticker benchmark.
