//! The frozen image generator.
