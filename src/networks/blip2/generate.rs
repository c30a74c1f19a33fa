//! Greedy and beam decoding.
