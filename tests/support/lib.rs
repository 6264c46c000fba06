//! The rig: what tests share.
