//! OPT decoder.
