//! Requests: how often they are tried, and the result of each answer.

mod pushes;
mod tries;
