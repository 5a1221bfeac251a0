//! Things of different sizes, dealt into parts of about the same size.

use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Deals things into at most `n` parts, none of them empty: the largest first, each to the
/// smallest. What has no size counts as 1.
pub(crate) fn deal<K: Ord>(sizes: BTreeMap<K, u64>, n: usize) -> Vec<Vec<K>> {
    let mut things: Vec<(K, u64)> = sizes.into_iter().collect();
    // those of one size stay in order
    things.sort_by_key(|(_, size)| Reverse(*size));
    let mut parts: Vec<(u64, Vec<K>)> = Vec::new();
    parts.resize_with(n.max(1), Default::default);
    for (thing, size) in things {
        let smallest = parts.iter_mut().min_by_key(|(sum, _)| *sum);
        let (sum, part) = smallest.expect("there is a part at least");
        *sum += size.max(1);
        part.push(thing);
    }
    parts.into_iter().map(|(_, part)| part).filter(|part| !part.is_empty()).collect()
}
