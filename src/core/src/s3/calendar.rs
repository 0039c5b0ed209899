//! Dates as S3 writes and reads them. Time is milliseconds since the Unix epoch, in UTC; leap seconds do not exist.

/// One day in milliseconds.
pub const DAY_MS: u64 = 86_400_000;

const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
/// 9999-12-31: no format here has room for more.
const LAST_DAY: u64 = 2_932_896;

/// A moment taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// From 1970.
    pub year: u64,
    /// 1 to 12.
    pub month: u64,
    /// 1 to 31.
    pub day: u64,
    /// 0 to 23.
    pub hour: u64,
    /// 0 to 59.
    pub minute: u64,
    /// 0 to 59.
    pub second: u64,
    /// 0 to 999.
    pub milli: u64,
}

impl Moment {
    /// The moment of these milliseconds; anything after the year 9999 is its last day.
    pub fn of(ms: u64) -> Self {
        let (year, month, day) = civil((ms / DAY_MS).min(LAST_DAY));
        let in_day = ms % DAY_MS;
        Self {
            year,
            month,
            day,
            hour: in_day / 3_600_000,
            minute: in_day / 60_000 % 60,
            second: in_day / 1_000 % 60,
            milli: in_day % 1_000,
        }
    }
}

/// Year, month and day of a day since the epoch (Hinnant, "chrono-compatible low-level date algorithms").
fn civil(day: u64) -> (u64, u64, u64) {
    let from_march = day + 719_468;
    let era = from_march / 146_097;
    let of_era = from_march % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// The day since the epoch; `None` before 1970, after 9999 and for days that no month has.
fn day_of(year: u64, month: u64, day: u64) -> Option<u64> {
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let from_march = year - u64::from(month <= 2);
    let (era, year_of_era) = (from_march / 400, from_march % 400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year;
    let since = era * 146_097 + of_era - 719_468;
    (civil(since) == (year, month, day)).then_some(since)
}

/// `Fri, 23 Dec 2012 00:00:00 GMT`, as in HTTP headers (RFC 9110).
pub fn http_date(ms: u64) -> String {
    let Moment { year, month, day, hour, minute, second, .. } = Moment::of(ms);
    let weekday = WEEKDAYS[(ms / DAY_MS % 7) as usize];
    let month = MONTHS[(month - 1) as usize];
    format!("{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
}

/// `2012-12-23T00:00:00.000Z`, as in XML and JSON.
pub fn iso_date(ms: u64) -> String {
    let Moment { year, month, day, hour, minute, second, milli } = Moment::of(ms);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
}

/// `[23/Dec/2012:00:00:00 +0000]`, as in access logs.
pub fn log_date(ms: u64) -> String {
    let Moment { year, month, day, hour, minute, second, .. } = Moment::of(ms);
    format!("[{day:02}/{}/{year:04}:{hour:02}:{minute:02}:{second:02} +0000]", MONTHS[(month - 1) as usize])
}

/// The first midnight at or after `ms`.
pub fn next_midnight(ms: u64) -> u64 {
    ms.div_ceil(DAY_MS).saturating_mul(DAY_MS)
}

/// Reads an ISO 8601 date: `2012-12-23`, or with `T00:00[:00[.000]]` and `Z` or an offset `+01:00`; milliseconds.
pub fn parse_iso(text: &str) -> Option<u64> {
    let (date, time) = match text.split_once('T') {
        Some((date, time)) => (date, Some(time)),
        None => (text, None),
    };
    let mut parts = date.split('-');
    let day = day_of(number(parts.next()?, 4)?, number(parts.next()?, 2)?, number(parts.next()?, 2)?)?;
    if parts.next().is_some() {
        return None;
    }
    let midnight = day * DAY_MS;
    let Some(time) = time else { return Some(midnight) };
    let (clock, offset_minutes) = match time.strip_suffix('Z') {
        Some(clock) => (clock, 0),
        None => split_offset(time)?,
    };
    let mut parts = clock.split(':');
    let (hour, minute) = (number(parts.next()?, 2)?, number(parts.next()?, 2)?);
    let (second, milli) = match parts.next() {
        None => (0, 0),
        Some(seconds) => match seconds.split_once('.') {
            None => (number(seconds, 2)?, 0),
            Some((second, fraction)) => (number(second, 2)?, millis(fraction)?),
        },
    };
    if parts.next().is_some() || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let local = midnight + hour * 3_600_000 + minute * 60_000 + second * 1_000 + milli;
    local.checked_add_signed(-offset_minutes * 60_000)
}

/// A number of exactly so many digits.
fn number(text: &str, digits: usize) -> Option<u64> {
    (text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

fn millis(fraction: &str) -> Option<u64> {
    if !(1..=9).contains(&fraction.len()) || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    format!("{fraction:0<3}").get(..3)?.parse().ok()
}

fn split_offset(time: &str) -> Option<(&str, i64)> {
    let at = time.rfind(['+', '-'])?;
    let (clock, offset) = time.split_at(at);
    let (hours, minutes) = offset.get(1..)?.split_once(':')?;
    let (hours, minutes) = (number(hours, 2)?, number(minutes, 2)?);
    let minutes = i64::try_from(hours * 60 + minutes).ok().filter(|minutes| *minutes < 24 * 60)?;
    Some((clock, if offset.starts_with('-') { -minutes } else { minutes }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_dates_come_out_right() {
        assert_eq!(http_date(784_111_777_000), "Sun, 06 Nov 1994 08:49:37 GMT", "the example of RFC 9110");
        assert_eq!(iso_date(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(log_date(1_549_411_238_000), "[06/Feb/2019:00:00:38 +0000]", "the example of AWS's log format");
        assert_eq!(parse_iso("2019-02-06T00:00:38Z"), Some(1_549_411_238_000));
        assert_eq!(parse_iso("1970-01-01T01:00:00.5+01:00"), Some(500));
        assert_eq!(parse_iso("2023-02-29"), None);
        assert_eq!(parse_iso("1970-01-01T00:00:00+01:00"), None, "before the epoch");
        assert_eq!(next_midnight(DAY_MS), DAY_MS);
        assert_eq!(next_midnight(DAY_MS + 1), 2 * DAY_MS);
    }

    proptest! {
        #[test]
        fn dates_read_back(ms in 0..=(LAST_DAY + 1) * DAY_MS - 1) {
            prop_assert_eq!(parse_iso(&iso_date(ms)), Some(ms));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}", digits in "[-0-9TZ:.+]{0,32}", ms: u64) {
            let _ = (parse_iso(&text), parse_iso(&digits));
            let _ = (http_date(ms), iso_date(ms), log_date(ms));
        }
    }
}
