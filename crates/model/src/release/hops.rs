//! The way from a version to another, where there is no direct one.

use super::SupportedPaths;
use semver::{BuildMetadata, Prerelease, Version, VersionReq};
use std::collections::{BTreeMap, VecDeque};

/// Versions to install in between, in order; `None`: there is no way.
pub(super) fn between(
    from: &Version,
    to: &Version,
    paths: &SupportedPaths,
) -> Option<Vec<Version>> {
    // The ends of the ranges are enough: a row that leads anywhere leads to one of them.
    let mut stops: Vec<Version> = paths
        .path
        .iter()
        .flat_map(|row| ends(&row.from).into_iter().chain(ends(&row.to)))
        .filter(|stop| from < stop && stop < to)
        .collect();
    stops.sort();
    stops.dedup();
    stops.push(to.clone());

    let mut came_from: BTreeMap<Version, Version> = BTreeMap::new();
    let mut open = VecDeque::from([from.clone()]);
    while let Some(at) = open.pop_front() {
        for stop in &stops {
            if paths.allows(&at, stop) && *stop != at && !came_from.contains_key(stop) {
                came_from.insert(stop.clone(), at.clone());
                open.push_back(stop.clone());
            }
        }
    }
    let mut hops = Vec::new();
    let mut at = came_from.get(to)?;
    while at != from {
        hops.push(at.clone());
        at = came_from.get(at)?;
    }
    hops.reverse();
    Some(hops)
}

fn ends(requirement: &VersionReq) -> Vec<Version> {
    let version = |comparator: &semver::Comparator| Version {
        major: comparator.major,
        minor: comparator.minor.unwrap_or(0),
        patch: comparator.patch.unwrap_or(0),
        pre: Prerelease::EMPTY,
        build: BuildMetadata::EMPTY,
    };
    requirement.comparators.iter().map(version).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::release::SupportedPath;

    #[test]
    fn the_shortest_way() {
        let row = |from: &str, to: &str| SupportedPath {
            from: from.parse().unwrap(),
            to: to.parse().unwrap(),
        };
        let paths = SupportedPaths {
            path: vec![
                row(">=1.0.0, <2.0.0", ">=1.0.0, <3.0.0"),
                row(">=2.4.0, <3.0.0", ">=2.4.0, <4.0.0"),
            ],
        };
        let v = |text: &str| text.parse::<Version>().unwrap();
        assert_eq!(between(&v("1.2.0"), &v("2.9.0"), &paths), Some(vec![]));
        assert_eq!(
            between(&v("1.2.0"), &v("3.1.0"), &paths),
            Some(vec![v("2.4.0")])
        );
        assert_eq!(between(&v("0.9.0"), &v("3.1.0"), &paths), None);
        assert_eq!(between(&v("1.0.0"), &v("4.0.0"), &paths), None);
    }
}
