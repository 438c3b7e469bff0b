/// The candidate that `text` most likely meant: at most a third of it mistyped, else nothing.
pub fn did_you_mean<'a>(text: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Both bounds keep a hostile key of megabytes from costing anything.
    if text.len() > 64 {
        return None;
    }
    let near = |candidate: &'a str| Some((distance(text, candidate), candidate));
    let (cost, best) =
        candidates.into_iter().filter(|c| c.len() <= 64).filter_map(near).min_by_key(|(cost, _)| *cost)?;
    (cost <= (text.len() / 3).max(1)).then_some(best)
}

/// Edits that turn one text into the other: insert, delete, replace, swap neighbours (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before[j - 2] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}
