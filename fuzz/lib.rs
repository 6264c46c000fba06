//! What the targets share: settings out of the first bytes of an input, pieces out of the rest.

use std::time::Duration;

use bytes::Bytes;

/// Stands between two parts of an input. No HTTP head has it, so that a part is easily made whole.
const SEPARATOR: u8 = 0xff;

/// The first bytes, as settings, and what follows.
pub fn settings<const N: usize>(input: &[u8]) -> Option<([u8; N], &[u8])> {
    let (first, rest) = input.split_first_chunk::<N>()?;
    Some((*first, rest))
}

/// The parts of an input, at most so many.
pub fn parts(input: &[u8], most: usize) -> impl Iterator<Item = &[u8]> {
    input.splitn(most, |byte| *byte == SEPARATOR)
}

/// Pieces of sizes that come from a seed, as a network might make them. Zero: all at once.
pub fn pieces(input: &[u8], seed: u8) -> Vec<Bytes> {
    let (mut rest, mut pieces, mut word) = (input, Vec::new(), u32::from(seed));
    while !rest.is_empty() {
        word = word.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let size = match seed {
            0 => rest.len(),
            1..64 => 1 + (word >> 30) as usize,
            64..128 => 1 + (word >> 24) as usize,
            _ => 1 + (word >> 22) as usize,
        };
        let (piece, after) = rest.split_at(size.min(rest.len()));
        pieces.push(Bytes::copy_from_slice(piece));
        rest = after;
    }
    pieces
}

/// Runs something where time passes at once whenever everybody waits.
pub fn quickly<T>(what: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(what)
}

/// Longer than any limit that the code under test keeps by itself.
pub const LONG: Duration = Duration::from_secs(24 * 3600);

/// What has to come to an end by itself.
pub async fn ends<T>(what: &str, doing: impl Future<Output = T>) -> T {
    let ended = tokio::time::timeout(LONG, doing).await;
    ended.unwrap_or_else(|_| panic!("hangs: {what}"))
}
