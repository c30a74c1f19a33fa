//! The machinery of every training loop: optimiser, schedules, averages, checkpoints, logs, progress
//! and interruption. Knows no network and no loss.

pub mod average;
pub mod checkpoint;
pub mod device_failure;
pub mod interrupt;
pub mod log;
pub mod optimizer;
pub mod parameters;
pub mod progress;
pub mod schedule;
pub mod tensorboard;

pub use average::ParameterAverage;
pub use checkpoint::{Checkpoint, CheckpointError, CheckpointStore};
pub use interrupt::Interrupt;
pub use log::{Journal, MetricsLog};
pub use optimizer::{AdamW, AdamWConfig};
pub use progress::{Progress, Silent};
pub use schedule::{Decay, Schedule};
pub use tensorboard::EventLog;
