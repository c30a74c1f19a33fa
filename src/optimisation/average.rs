//! Exponential moving average of parameters.
