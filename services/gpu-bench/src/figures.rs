//! Arithmetic on times: medians, the line through them, what a batch brings.

use crate::schema::Spread;

/// The value below which this share of the sorted values lies.
fn percentile(sorted: &[f64], share: f64) -> f64 {
    let index = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(index.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

/// Of milliseconds.
pub(crate) fn spread(times: &[f64]) -> Spread {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    Spread {
        calls: sorted.len(),
        min: rounded(sorted.first().copied().unwrap_or(f64::NAN)),
        p50: rounded(percentile(&sorted, 0.5)),
        p95: rounded(percentile(&sorted, 0.95)),
    }
}

/// With five digits, more than any clock is worth.
pub(crate) fn rounded(value: f64) -> f64 {
    format!("{value:.4e}").parse().unwrap_or(value)
}

/// T(B) = a + b B.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Line {
    pub(crate) a: f64,
    pub(crate) b: f64,
    /// Root of the mean square of what it leaves over.
    pub(crate) residual: f64,
}

/// Least squares. None: fewer than three batch sizes, through which any line goes.
pub(crate) fn line(points: &[(usize, f64)]) -> Option<Line> {
    if points.len() < 3 {
        return None;
    }
    let n = points.len() as f64;
    let (mut x, mut y) = (0.0, 0.0);
    for (batch, time) in points {
        x += *batch as f64 / n;
        y += time / n;
    }
    let (mut xx, mut xy) = (0.0, 0.0);
    for (batch, time) in points {
        let from = *batch as f64 - x;
        xx += from * from;
        xy += from * (time - y);
    }
    if xx == 0.0 {
        return None;
    }
    let b = xy / xx;
    let a = y - b * x;
    let left: f64 = points
        .iter()
        .map(|(batch, time)| (time - a - b * *batch as f64).powi(2))
        .sum();
    Some(Line {
        a,
        b,
        residual: (left / n).sqrt(),
    })
}

/// Images per second of this batch beside those of single ones: B T(1) / T(B).
pub(crate) fn gain(one: f64, batch: usize, time: f64) -> f64 {
    batch as f64 * one / time
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_through_points_on_one_leaves_nothing_over() {
        let points = [1, 2, 4, 8].map(|batch| (batch, 3.0 + 2.5 * batch as f64));
        let line = line(&points).unwrap();
        assert!((line.a - 3.0).abs() < 1e-9 && (line.b - 2.5).abs() < 1e-9, "{line:?}");
        assert!(line.residual < 1e-9, "{line:?}");
        assert!((gain(5.5, 2, 8.0) - 1.375).abs() < 1e-12);
    }

    #[test]
    fn what_bends_is_told_by_the_residual() {
        let line = line(&[(1, 5.0), (2, 5.0), (4, 5.0), (8, 20.0)]).unwrap();
        assert!(line.residual > 1.0, "{line:?}");
        assert_eq!(super::line(&[(1, 5.0), (2, 6.0)]), None);
        assert_eq!(super::line(&[(2, 5.0), (2, 6.0), (2, 6.0)]), None);
    }

    #[test]
    fn percentiles_are_values_that_occurred() {
        let times: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        let made = spread(&times);
        assert_eq!((made.calls, made.min, made.p50, made.p95), (100, 1.0, 50.0, 95.0));
        assert_eq!(rounded(1.234_567_8), 1.2346);
        assert_eq!(rounded(0.0), 0.0);
    }
}
