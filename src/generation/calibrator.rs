//! Balance Calibrator.
