//! Recall, NDCG, rank change.
