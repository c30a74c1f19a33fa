//! Item graphs and propagation.
