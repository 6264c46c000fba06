//! `comfystream`.

fn main() {}
