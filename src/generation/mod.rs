//! The generation module: keywords, preference, mapper, calibrator, generator.

pub mod calibrator;
pub mod generator;
pub mod keywords;
pub mod mapper;
pub mod preference;
