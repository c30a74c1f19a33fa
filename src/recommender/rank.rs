//! Ranks and scores.
