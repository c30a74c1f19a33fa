//! Truth scores of the sticker benchmark.
