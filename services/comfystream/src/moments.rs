//! Which frames of a video of unknown length to show: a few, evenly spread.

/// Keeps at most twice as many as are wanted: when it is full, every other one goes and the distance doubles.
#[derive(Debug)]
pub(crate) struct Moments<T> {
    wanted: usize,
    distance: u64,
    seen: u64,
    kept: Vec<(u64, T)>,
}

impl<T> Moments<T> {
    /// For so many at the end.
    pub(crate) fn new(wanted: usize) -> Self {
        Self {
            wanted: wanted.max(1),
            distance: 1,
            seen: 0,
            kept: Vec::new(),
        }
    }

    /// The next frame passes; it is made only if it is to be kept.
    pub(crate) fn offer(&mut self, make: impl FnOnce() -> Option<T>) {
        let number = self.seen;
        self.seen += 1;
        if !number.is_multiple_of(self.distance) {
            return;
        }
        if self.kept.len() == self.wanted * 4 {
            self.distance *= 2;
            self.kept.retain(|(number, _)| number.is_multiple_of(self.distance));
            if !number.is_multiple_of(self.distance) {
                return;
            }
        }
        self.kept.extend(make().map(|made| (number, made)));
    }

    /// The ones nearest to the middles of equal parts of the video, in order, each once.
    pub(crate) fn chosen(self) -> Vec<T> {
        let (wanted, seen) = (self.wanted as u64, self.seen);
        let mut rest = self.kept;
        let mut chosen: Vec<(u64, T)> = Vec::with_capacity(self.wanted);
        for part in 0..wanted {
            let middle = (2 * part + 1) * seen / (2 * wanted);
            let nearest = (0..rest.len()).min_by_key(|at| rest[*at].0.abs_diff(middle));
            chosen.extend(nearest.map(|at| rest.remove(at)));
        }
        chosen.sort_by_key(|(number, _)| *number);
        chosen.into_iter().map(|(_, made)| made).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(frames: u64, wanted: usize) -> Vec<u64> {
        let mut moments = Moments::new(wanted);
        for number in 0..frames {
            moments.offer(|| Some(number));
        }
        moments.chosen()
    }

    #[test]
    fn a_short_video_is_shown_whole() {
        assert_eq!(of(0, 8), Vec::<u64>::new());
        assert_eq!(of(3, 8), [0, 1, 2]);
        assert_eq!(of(8, 8), [0, 1, 2, 3, 4, 5, 6, 7]);
    }

    #[test]
    fn a_long_one_is_shown_evenly() {
        for frames in [9, 33, 300, 1_001, 100_000] {
            let chosen = of(frames, 8);
            assert_eq!(chosen.len(), 8, "{frames}");
            for (part, number) in chosen.iter().enumerate() {
                let middle = (2 * part as u64 + 1) * frames / 16;
                assert!(number.abs_diff(middle) <= frames / 16 + 1, "{frames}: {chosen:?}");
            }
            assert!(chosen.windows(2).all(|pair| pair[0] < pair[1]), "{frames}: {chosen:?}");
        }
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut moments = Moments::new(8);
        for number in 0..10_000u64 {
            moments.offer(|| Some(number));
            assert!(moments.kept.len() <= 32);
        }
    }
}
