//! MICRO.
