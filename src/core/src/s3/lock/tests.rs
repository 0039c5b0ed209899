use super::*;

const NOW: u64 = 1_000;

fn asking(bypass: bool) -> Asking {
    Asking { now_ms: NOW, bypass }
}

fn locked(mode: Mode, until_ms: u64) -> Lock {
    Lock { retention: Some(Retention { mode, until_ms }), legal_hold: None }
}

/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-lock.html#object-lock-retention-modes>: mode, end,
/// legal hold, bypass, whether it may be deleted.
#[test]
fn protected_versions_stay() {
    use Mode::{Compliance, Governance};
    let table = [
        (None, false, false, true),
        (None, true, true, false),
        (Some((Governance, NOW + 1)), false, false, false),
        (Some((Governance, NOW + 1)), false, true, true),
        (Some((Governance, NOW + 1)), true, true, false),
        (Some((Compliance, NOW + 1)), false, true, false),
        (Some((Compliance, NOW)), false, false, true),
    ];
    for (retention, legal_hold, bypass, may) in table {
        let retention = retention.map(|(mode, until_ms)| Retention { mode, until_ms });
        let verdict = Lock { retention, legal_hold: Some(legal_hold) }.check_delete(asking(bypass));
        assert_eq!(verdict.is_ok(), may, "{retention:?} {legal_hold} {bypass}");
    }
    let refusal = locked(Compliance, NOW + 1).check_delete(asking(true)).expect_err("kept");
    assert_eq!((refusal.status, refusal.code), (403, "AccessDenied"));
}

/// "After you apply a retention setting, you can submit a new version request to extend it; … in compliance mode its
/// retention mode can't be changed, and its retention period can't be shortened."
#[test]
fn retention_only_grows_unless_governance_is_bypassed() {
    use Mode::{Compliance, Governance};
    let until = |mode, until_ms| Some(Retention { mode, until_ms });
    let table = [
        (Governance, until(Governance, 200), true, true),
        (Governance, until(Governance, 50), false, true),
        (Governance, until(Compliance, 200), false, true),
        (Governance, None, false, true),
        (Compliance, until(Compliance, 200), true, true),
        (Compliance, until(Compliance, 50), false, false),
        (Compliance, until(Governance, 200), false, false),
        (Compliance, None, false, false),
    ];
    for (mode, new, plain, bypassed) in table {
        let new = new.map(|new| Retention { until_ms: NOW + new.until_ms, ..new });
        let lock = locked(mode, NOW + 100);
        assert_eq!(lock.with_retention(new, asking(false)).is_ok(), plain, "{mode:?} {new:?}");
        assert_eq!(lock.with_retention(new, asking(true)).is_ok(), bypassed, "{mode:?} {new:?} with bypass");
        let over = locked(mode, NOW);
        assert_eq!(over.with_retention(new, asking(false)).map(|lock| lock.retention), Ok(new), "it is over");
    }
    let past = Lock::default().with_retention(until(Governance, NOW), asking(true)).expect_err("in the past");
    assert_eq!(past.code, "InvalidArgument");
    let held = Lock { legal_hold: Some(true), ..locked(Compliance, NOW + 1) };
    assert_eq!(held.with_legal_hold(false), Lock { legal_hold: Some(false), ..locked(Compliance, NOW + 1) });
}

#[test]
fn new_versions_get_what_they_ask_for_or_the_default() {
    let default = DefaultRetention::new(Mode::Governance, None, Some(1)).expect("valid");
    let given = Lock::for_new(Lock::default(), Some(Some(default)), NOW).expect("valid");
    assert_eq!(given, locked(Mode::Governance, NOW + 365 * DAY_MS));
    let asked = locked(Mode::Compliance, NOW + 5);
    assert_eq!(Lock::for_new(asked, Some(Some(default)), NOW), Ok(asked));
    let hold = Lock { legal_hold: Some(true), retention: None };
    assert_eq!(Lock::for_new(hold, Some(None), NOW), Ok(hold));
    assert_eq!(Lock::for_new(hold, None, NOW).expect_err("no object lock").code, "InvalidRequest");
    assert_eq!(Lock::for_new(locked(Mode::Governance, 1), Some(None), NOW).expect_err("past").code, "InvalidArgument");
    assert_eq!(Lock::for_new(Lock::default(), None, NOW), Ok(Lock::default()));
}

#[test]
fn configurations_and_headers_are_checked() {
    let period = |days, years| DefaultRetention::new(Mode::Compliance, days, years).map_err(|refusal| refusal.code);
    assert_eq!(period(None, None), Err("MalformedXML"));
    assert_eq!(period(Some(1), Some(1)), Err("MalformedXML"));
    assert_eq!(period(Some(0), None), Err("InvalidRetentionPeriod"));
    assert_eq!(period(None, Some(101)), Err("InvalidRetentionPeriod"));
    assert!(period(None, Some(100)).is_ok());
    assert_eq!(retention_of_headers(Some("GOVERNANCE"), None).expect_err("half").code, "InvalidArgument");
    assert_eq!(retention_of_headers(Some("governance"), Some(1)).expect_err("case").code, "InvalidArgument");
    assert_eq!(retention_of_headers(None, None), Ok(None));
    assert_eq!(check_enable(Versioning::Suspended).expect_err("needs versions").status, 409);
    assert_eq!(check_versioning(Versioning::Suspended, true).expect_err("for ever").code, "InvalidBucketState");
    assert_eq!(check_versioning(Versioning::Suspended, false), Ok(()));
    assert_eq!(no_lock().status, 404);
}
