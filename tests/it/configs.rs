//! Every shipped configuration loads.
