//! Graphs as code.
