//! The generation module (paper Sec. 3.2): keywords, preference, mapper, calibrator, generator.

pub mod calibrator;
pub mod choice;
pub mod conditioning;
pub mod drawing;
pub mod generator;
pub mod keywords;
pub mod mapper;
pub mod noise;
pub mod preference;
pub mod references;
pub mod sample;
pub mod segments;
pub mod shift;
