//! Sorting that counts: `c2` before `c10`, and empty cells last.

use std::cmp::Ordering;

pub fn compare(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    while let (Some(&x), Some(&y)) = (a.first(), b.first()) {
        if x.is_ascii_digit() && y.is_ascii_digit() {
            let (number_a, number_b) = (digits(a), digits(b));
            let (plain_a, plain_b) = (trim_zeros(number_a), trim_zeros(number_b));
            let by_value = plain_a.len().cmp(&plain_b.len()).then_with(|| plain_a.cmp(plain_b));
            let order = by_value.then(number_a.len().cmp(&number_b.len()));
            if order != Ordering::Equal {
                return order;
            }
            (a, b) = (&a[number_a.len()..], &b[number_b.len()..]);
        } else if x != y {
            return x.cmp(&y);
        } else {
            (a, b) = (&a[1..], &b[1..]);
        }
    }
    a.len().cmp(&b.len())
}

/// Rows by their first differing cell.
pub fn sort_rows(rows: &mut [Vec<String>]) {
    rows.sort_by(|a, b| {
        let differing = a.iter().zip(b).find(|(x, y)| x != y);
        differing.map_or(Ordering::Equal, |(x, y)| match (x.is_empty(), y.is_empty()) {
            (true, _) => Ordering::Greater,
            (_, true) => Ordering::Less,
            _ => compare(x, y),
        })
    });
}

fn digits(text: &[u8]) -> &[u8] {
    let end = text.iter().position(|c| !c.is_ascii_digit()).unwrap_or(text.len());
    &text[..end]
}

fn trim_zeros(number: &[u8]) -> &[u8] {
    let start = number.iter().position(|c| *c != b'0').unwrap_or(number.len());
    &number[start..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_names_count() {
        let mut rows: Vec<Vec<String>> = ["c10", "c2", "", "b9", "c02"].map(|n| vec![n.to_owned()]).into();
        sort_rows(&mut rows);
        assert_eq!(rows.concat(), ["b9", "c2", "c02", "c10", ""]);
    }
}
