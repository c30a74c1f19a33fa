//! Metrics log.
