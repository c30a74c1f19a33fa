//! Image decoding with limits.
