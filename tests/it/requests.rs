//! Requests: how often they are tried, and what each answer becomes.

mod pushes;
mod tries;
