//! Scheduler configuration.
