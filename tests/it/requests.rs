//! Requests: how often they are tried, the result of each answer, and what a running pass reports
//! of them.

mod progress;
mod pushes;
mod tries;
