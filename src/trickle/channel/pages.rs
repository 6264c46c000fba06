//! The bytes of a segment, kept as they came in, so that every reader gets them without a copy.

use bytes::Bytes;

/// What a page costs beyond its bytes, roughly: its entry here and the allocation's own book-keeping.
const PAGE_COST: usize = 96;

/// Pages smaller than this are joined once there are enough of them.
const SMALL: usize = 4096;

/// Small pages are joined when there are so many in a row, or when they hold as much as [`JOINED_BYTES`].
const JOINED_PAGES: usize = 32;

/// See [`JOINED_PAGES`].
const JOINED_BYTES: usize = 8 * 1024;

/// Pages of a segment that is short: moving them costs nothing.
const SHORT: usize = 8;

/// Bytes in order, appended to and read from any place.
///
/// A small piece is copied, for it may be a slice of a receive buffer many times its size, which could not be used again
/// as long as the piece is there. Later it is joined with others: a hundred pieces cost a late reader a hundred writes.
/// Both is done once, whatever the readers.
#[derive(Debug, Default)]
pub(super) struct Pages {
    pages: Vec<Page>,
    len: usize,
    /// Not held any more: [`clear`](Self::clear) was called.
    cleared: bool,
    /// The first of the small pages at the end.
    small: usize,
}

#[derive(Debug)]
struct Page {
    start: usize,
    bytes: Bytes,
}

impl Pages {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// What all of this costs.
    pub(super) fn cost(&self) -> usize {
        if self.cleared {
            0
        } else {
            self.len + self.pages.len() * PAGE_COST
        }
    }

    /// What one more page would cost.
    pub(super) fn cost_of(bytes: &Bytes) -> usize {
        bytes.len() + PAGE_COST
    }

    pub(super) fn push(&mut self, bytes: Bytes) {
        let small = bytes.len() < SMALL;
        let bytes = match small {
            true => Bytes::copy_from_slice(&bytes),
            false => {
                self.join();
                bytes
            }
        };
        let start = self.len;
        self.len += bytes.len();
        self.pages.push(Page { start, bytes });
        if !small {
            self.small = self.pages.len();
        } else if self.pages.len() - self.small >= JOINED_PAGES
            || self.len - self.pages[self.small].start >= JOINED_BYTES
        {
            self.join();
        }
    }

    /// Joins the small pages at the end.
    pub(super) fn join(&mut self) {
        if let Some(first) = self.pages.get(self.small).filter(|_| self.pages.len() - self.small > 1) {
            let start = first.start;
            let mut joined = Vec::with_capacity(self.len - start);
            for page in self.pages.drain(self.small..) {
                joined.extend_from_slice(&page.bytes);
            }
            self.pages.push(Page {
                start,
                bytes: joined.into(),
            });
            // Room for pages that were joined is not needed in a short segment; in a long one it will be again.
            if self.pages.len() <= SHORT {
                self.pages.shrink_to_fit();
            }
        }
        // One that is small still is joined again with what follows: a page costs as much as many bytes.
        let small = self.pages.last().is_some_and(|last| last.bytes.len() < SMALL);
        self.small = self.pages.len() - usize::from(small);
    }

    /// What there is from `position` on, up to the end of its page. Empty only at the end.
    pub(super) fn read(&self, position: usize) -> Bytes {
        if position >= self.len || self.cleared {
            return Bytes::new();
        }
        let found = match self.pages.last() {
            // Where a reader at the live edge is.
            Some(last) if last.start <= position => self.pages.len() - 1,
            _ => self.pages.partition_point(|page| page.start <= position) - 1,
        };
        let page = &self.pages[found];
        page.bytes.slice(position - page.start..)
    }

    pub(super) fn clear(&mut self) {
        // The length stays: it says how large the segment was.
        self.pages = Vec::new();
        self.small = 0;
        self.cleared = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_as_they_went_in_from_every_place() {
        let mut pages = Pages::default();
        let mut all = Vec::new();
        let mut word = 1_u32;
        for _ in 0..500 {
            word = word.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let size = match word >> 29 {
                0 => 5000,
                1 => 4096,
                2 => 4095,
                size => size as usize,
            };
            let piece: Vec<u8> = (0..size).map(|i| (i as u32 ^ word >> 7) as u8).collect();
            all.extend_from_slice(&piece);
            pages.push(piece.into());
            let place = word as usize % all.len();
            let got = pages.read(place);
            assert!(!got.is_empty());
            assert_eq!(got, all[place..place + got.len()]);
        }
        assert_eq!(pages.len(), all.len());
        let (mut position, mut read) = (0, Vec::new());
        while position < pages.len() {
            let piece = pages.read(position);
            position += piece.len();
            read.extend_from_slice(&piece);
        }
        assert_eq!(read, all);
        assert!(pages.read(position).is_empty());
    }

    #[test]
    fn small_pieces_cost_little_more_than_their_bytes_once_joined() {
        let mut pages = Pages::default();
        for _ in 0..30 {
            pages.push(Bytes::from(vec![1; 1000]));
        }
        pages.join();
        assert_eq!(pages.cost(), 30_000 + 4 * PAGE_COST);
        for _ in 0..10_000 {
            pages.push(Bytes::from_static(b"x"));
        }
        assert!(pages.cost() < 40_000 + 2 * JOINED_PAGES * PAGE_COST, "{}", pages.cost());
    }
}
