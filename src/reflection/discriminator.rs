//! The ranking model as a judge.
