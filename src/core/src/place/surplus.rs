//! Which members hold too much beside others.

/// Points of fill, in hundredths of its capacity, by which a member may exceed the mean.
const BORNE_POINTS: u128 = 10;
/// Points above the mean to which one that exceeds it is relieved. Between the two lies what keeps fragments from
/// wandering to and fro.
const RELIEVED_POINTS: u128 = 5;

/// What a member holds and could hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fill {
    /// Bytes of fragments.
    pub used: u64,
    /// Bytes that could still be stored; `u64::MAX` where there is no bound.
    pub free: u64,
}

impl Fill {
    fn capacity(self) -> u128 {
        u128::from(self.used) + u128::from(self.free)
    }
}

/// How many bytes each member should give to others, so that none is more than 10 points fuller than the pool; 0 for those
/// that need not. Members without bound neither give nor count.
pub fn surplus_bytes(members: &[Fill]) -> Vec<u64> {
    let bounded = || members.iter().filter(|fill| fill.free != u64::MAX);
    let used: u128 = bounded().map(|fill| u128::from(fill.used)).sum();
    let capacity: u128 = bounded().map(|fill| fill.capacity()).sum::<u128>().max(1);
    // The bytes that a member would hold at so many points above the mean: 64 members of 2^65 bytes each, in
    // thousandths of points, stay within 128 bits.
    let mean_milli_points = used * 100_000 / capacity;
    let level = |fill: &Fill, points| fill.capacity() * (mean_milli_points + points * 1000) / 100_000;
    let surplus = |fill: &Fill| {
        let is_overfull = fill.free != u64::MAX && u128::from(fill.used) > level(fill, BORNE_POINTS);
        let surplus = u128::from(fill.used).saturating_sub(level(fill, RELIEVED_POINTS));
        if is_overfull { u64::try_from(surplus).unwrap_or(u64::MAX) } else { 0 }
    };
    members.iter().map(surplus).collect()
}
