//! Times as tables write them.

use crate::data::folder::seconds;

/// Seconds since 1970, from a number or from a date like `2020-01-31`, `2020-01-31 12:30` or `2020-01-31T12:30:59Z`.
/// A time zone other than `Z` is not understood; a date without one counts as UTC.
pub fn read(text: &str) -> Option<i64> {
    let text = text.trim();
    seconds(text).or_else(|| date(text))
}

fn date(text: &str) -> Option<i64> {
    let (day, clock) = match text.split_once(['T', ' ']) {
        Some((day, clock)) => (day, clock.trim_end_matches('Z')),
        None => (text, ""),
    };
    let number = |digits: &str, longest: usize| -> Option<i64> {
        let all_digits = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        (all_digits && digits.len() <= longest).then(|| digits.parse().ok())?
    };
    let mut parts = day.split(['-', '/']);
    let year = number(parts.next()?, 4).filter(|_| day.len() >= 8)?;
    let month = number(parts.next()?, 2).filter(|month| (1..=12).contains(month))?;
    let day = number(parts.next()?, 2).filter(|day| (1..=days_of(year, month)).contains(day))?;
    if parts.next().is_some() {
        return None;
    }
    let mut seconds = days_since_1970(year, month, day) * 86_400;
    if !clock.is_empty() {
        // Fractions are cut.
        let clock = clock.split('.').next()?;
        let fields: Vec<&str> = clock.split(':').collect();
        let [hour, minute, rest @ ..] = fields.as_slice() else {
            return None;
        };
        let second = match rest {
            [] => 0,
            [second] => number(second, 2).filter(|second| *second <= 60)?,
            _ => return None,
        };
        let hour = number(hour, 2).filter(|hour| *hour < 24)?;
        let minute = number(minute, 2).filter(|minute| *minute < 60)?;
        seconds += hour * 3_600 + minute * 60 + second;
    }
    Some(seconds)
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_of(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let leap_days = |year: i64| year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    let years = (year - 1970) * 365 + leap_days(year - 1) - leap_days(1969);
    let months: i64 = (1..month).map(|month| days_of(year, month)).sum();
    years + months + day - 1
}

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn numbers_and_dates_are_seconds() {
        let cases = [
            ("1700000000", Some(1_700_000_000)),
            ("8.81250949E8", Some(881_250_949)),
            ("1970-01-01", Some(0)),
            ("2000-03-01", Some(951_868_800)),
            ("2020-02-29T12:30:59.75Z", Some(1_582_979_459)),
            ("2018/09/20 00:01", Some(1_537_401_660)),
            ("1969-12-31 23:59:59", Some(-1)),
            ("2019-02-29", None),
            ("2020-13-01", None),
            ("20200131x", None),
            ("2020-01-31+02:00", None),
            ("yesterday", None),
            ("", None),
            ("NaN", None),
        ];
        for (text, expected) in cases {
            assert_eq!(read(text), expected, "{text:?}");
        }
    }
}
