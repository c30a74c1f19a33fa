//! scheduler.

pub mod config;
pub mod ddim;
