//! Correlation Unit.
