//! MICRO configuration.
