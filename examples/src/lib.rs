//! Numbered programs, one idea per file; each is a binary of this crate.
