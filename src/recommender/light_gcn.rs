//! LightGCN.
