//! The machinery of every training loop: optimiser, schedules, checkpoints, logs. Knows no network and no loss.

pub mod average;
pub mod checkpoint;
pub mod interrupt;
pub mod log;
pub mod optimizer;
pub mod schedule;
