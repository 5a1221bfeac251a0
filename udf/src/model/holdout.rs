//! Which flights are held out of training: by their identity, by whole days, or since a day.
//!
//! The weather and the queues of a day are shared by its flights, so a model that has seen half of
//! a day knows much of the other half, which it never will of a day to come: measures on held-out
//! flights flatter, measures on held-out days do not.

use std::fmt;
use std::str::FromStr;

use datafusion::arrow::array::temporal_conversions::date32_to_datetime;
use datafusion::arrow::compute::kernels::cast_utils::Parser;
use datafusion::arrow::datatypes::Date32Type;
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// Share of the flights that `flight` holds out where none is said.
const SHARE: f64 = 0.2;
/// Largest distance between days that are held out.
const DAYS_MAX: u32 = 10_000;

/// One way to hold flights out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rule {
    /// A share of the flights, by a hash of their identity.
    Flights(f64),
    /// The days whose number since 1970-01-01 this divides: every fifth day, say.
    Days(u32),
    /// All days from this one on, a number of days since 1970-01-01.
    Since(i32),
}

impl Rule {
    fn holds(self, flight_id: i64, day: i32) -> bool {
        match self {
            // the lowest 16 bits of the identity, which nothing else uses
            Self::Flights(share) => flight_id & 65_535 < (share * 65_536.0).round() as i64,
            Self::Days(every) => i64::from(day).rem_euclid(every.into()) == 0,
            Self::Since(since) => day >= since,
        }
    }
}

/// What is held out: flights for which each of the groups has a rule that holds. As text, rules of
/// a group are joined by `,` and groups by ` & `: `day:5,since:2013-12-01`.
#[derive(Debug, Clone, PartialEq)]
pub struct HoldOut(Vec<Vec<Rule>>);

impl HoldOut {
    /// What one rule holds out.
    pub fn by(rule: Rule) -> Self {
        Self(vec![vec![rule]])
    }

    /// Whether a flight is held out; `day` is a number of days since 1970-01-01.
    pub fn holds(&self, flight_id: i64, day: i32) -> bool {
        self.0.iter().all(|group| group.iter().any(|rule| rule.holds(flight_id, day)))
    }

    /// What both hold out.
    pub fn and(&self, other: &Self) -> Self {
        let mut groups = self.0.clone();
        groups.extend(other.0.iter().filter(|group| !self.0.contains(group)).cloned());
        Self(groups)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flights(share) => write!(f, "flight:{share}"),
            Self::Days(every) => write!(f, "day:{every}"),
            Self::Since(day) => match date32_to_datetime(*day) {
                Some(day) => write!(f, "since:{}", day.date()),
                None => write!(f, "since:{day}"),
            },
        }
    }
}

impl FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refuse = |why: &str| format!("{text:?} {why}");
        match text.split_once(':').unwrap_or((text, "")) {
            ("flight", "") => Ok(Self::Flights(SHARE)),
            ("flight", share) => {
                let share = share.parse().ok().filter(|share| (0.0..1.0).contains(share));
                let share = share.ok_or_else(|| refuse("needs a share from 0 to below 1"))?;
                Ok(Self::Flights(share))
            }
            ("day", every) => {
                let every = every.parse().ok().filter(|every| (2..=DAYS_MAX).contains(every));
                every.map(Self::Days).ok_or_else(|| refuse("needs a number from 2 to 10000"))
            }
            ("since", day) => {
                let day = Date32Type::parse(day).filter(|_| day.len() == "YYYY-MM-DD".len());
                day.map(Self::Since).ok_or_else(|| refuse("needs a day as YYYY-MM-DD"))
            }
            _ => Err(refuse("is not flight, flight:SHARE, day:N or since:YYYY-MM-DD")),
        }
    }
}

impl fmt::Display for HoldOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, group) in self.0.iter().enumerate() {
            let rules: Vec<String> = group.iter().map(Rule::to_string).collect();
            write!(f, "{}{}", if i > 0 { " & " } else { "" }, rules.join(","))?;
        }
        Ok(())
    }
}

impl FromStr for HoldOut {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let group = |group: &str| group.split(',').map(str::parse).collect();
        text.split(" & ").map(group).collect::<Result<_, _>>().map(Self)
    }
}

impl Serialize for HoldOut {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HoldOut {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextOrShare)
    }
}

/// Models of format 1 have a number: a share of the flights.
struct TextOrShare;

impl Visitor<'_> for TextOrShare {
    type Value = HoldOut;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("what is held out")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<HoldOut, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_f64<E: de::Error>(self, share: f64) -> Result<HoldOut, E> {
        match (0.0..1.0).contains(&share) {
            true => Ok(HoldOut::by(Rule::Flights(share))),
            false => Err(E::custom("the share held out is not from 0 to below 1")),
        }
    }

    fn visit_u64<E: de::Error>(self, share: u64) -> Result<HoldOut, E> {
        self.visit_f64(share as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(text: &str, flight_id: i64, day: i32) -> bool {
        text.parse::<HoldOut>().unwrap().holds(flight_id, day)
    }

    #[test]
    fn flights_days_and_what_is_to_come_are_held_out() {
        assert!(held("flight:0.25", 16_383, 1) && !held("flight:0.25", 16_384, 1));
        assert!(held("flight:0.25", -65_536, 1) && !held("flight:0.25", -1, 1));
        assert!(!held("flight:0", 0, 1));
        // 2013-12-20 and 2013-12-25 are the days 16,059 and 16,064
        assert!(!held("day:5", 1, 16_059) && held("day:5", 1, 16_060) && held("day:5", 1, -5));
        assert!(held("since:2013-12-25", 1, 16_064) && !held("since:2013-12-25", 1, 16_063));
        assert!(held("day:5,since:2013-12-25", 1, 16_060));
        assert!(held("day:5,since:2013-12-25", 1, 16_064));
        assert!(!held("day:5 & since:2013-12-25", 1, 16_060));
        assert!(held("day:5 & since:2013-12-25", 1, 16_065));
    }

    #[test]
    fn what_both_hold_out_is_said_once() {
        let (days, later) = ("day:5".parse::<HoldOut>().unwrap(), "since:2013-12-25,day:7");
        assert_eq!(days.and(&days), days);
        let both = days.and(&later.parse().unwrap());
        assert_eq!(both.to_string(), "day:5 & since:2013-12-25,day:7");
        assert_eq!(both.to_string().parse::<HoldOut>().unwrap(), both);
    }

    #[test]
    fn what_is_no_rule_is_refused_by_name() {
        for text in ["", "day", "day:1", "day:x", "flight:1", "flight:-0.1", "flight:NaN", "week:2"]
        {
            let error = text.parse::<HoldOut>().unwrap_err();
            assert!(error.starts_with(&format!("{text:?} ")), "{error}");
        }
        for text in ["since:", "since:2013-02-30", "since:13-2-3", "since:2013-12-25T00:00"] {
            let error = text.parse::<HoldOut>().unwrap_err();
            assert!(error.contains("needs a day as YYYY-MM-DD"), "{error}");
        }
    }

    #[test]
    fn models_of_format_1_held_out_a_share_of_the_flights() {
        let read = |json: &str| serde_json::from_str::<HoldOut>(json);
        assert_eq!(read("0.2").unwrap(), read("\"flight\"").unwrap());
        assert_eq!(read("0").unwrap(), read("\"flight:0\"").unwrap());
        assert!(read("1.5").is_err() && read("\"often\"").is_err());
    }
}
