//! Medians and the like.

/// A row's figure: milliseconds, or whatever unit its row says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figure {
    pub p50: f64,
    pub p95: f64,
    pub count: usize,
}

impl Figure {
    /// `None` of no samples.
    pub fn of(mut samples: Vec<f64>) -> Option<Self> {
        samples.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let last = samples.len().checked_sub(1)?;
            // Nearest rank: a figure that was really seen.
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
            let rank = (share * samples.len() as f64).ceil() as usize;
            samples.get(rank.saturating_sub(1).min(last)).copied()
        };
        Some(Self { p50: at(0.5)?, p95: at(0.95)?, count: samples.len() })
    }

    pub fn single(value: f64) -> Self {
        Self { p50: value, p95: value, count: 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples_that_were_seen() {
        let figure = Figure::of((1..=100).rev().map(f64::from).collect()).unwrap();
        assert_eq!((figure.p50, figure.p95, figure.count), (50.0, 95.0, 100));
        assert_eq!(Figure::of(vec![7.0]).unwrap(), Figure::single(7.0));
        assert_eq!(Figure::of(Vec::new()), None);
    }
}
