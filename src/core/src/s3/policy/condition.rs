//! The `Condition` element
//! (<https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition_operators.html>).
//!
//! All conditions of a statement must hold; of several values of one key, one must match, or with a negated operator
//! none. A key that the request does not have fails every operator but the negated ones, `Null`, `…IfExists` and
//! `ForAllValues`.

use std::cmp::Ordering;
use std::net::IpAddr;

use data_encoding::BASE64;

use super::Context;
use super::variable::{Reading, Template};
use crate::s3::calendar::parse_iso;
use crate::s3::pattern::{Token, matches};

/// One operator, one key, its values.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    test: Test,
    negated: bool,
    if_exists: bool,
    quantifier: Quantifier,
    key: String,
    values: Vec<Value>,
}

/// How values are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Test {
    Text { ignore_case: bool, wildcards: bool },
    Number(Order),
    Date(Order),
    Flag,
    Binary,
    Address,
    Arn,
    Null,
}

/// Which orders of the request's value and the policy's are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Order {
    fn accepts(self, order: Ordering) -> bool {
        match self {
            Self::Equal => order.is_eq(),
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::GreaterOrEqual => order.is_ge(),
        }
    }
}

/// How an operator treats a key with several values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quantifier {
    /// None given: a key with one value; of several, any.
    None,
    /// `ForAllValues:`, true also for no value.
    All,
    /// `ForAnyValue:`, false for no value.
    Any,
}

/// A value of the policy, ready to be compared.
#[derive(Debug, Clone, PartialEq)]
enum Value {
    Text(Template),
    Number(f64),
    /// Milliseconds since the epoch.
    Date(u64),
    Flag(bool),
    Binary(Vec<u8>),
    Network(Network),
}

/// Why a condition is not one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConditionError {
    /// No such operator.
    Operator,
    /// A value that is no address.
    Address,
    /// A value that the operator cannot compare.
    Value,
}

impl Condition {
    /// Reads one operator with one key and its values.
    pub fn parse(operator: &str, key: &str, values: &[&str], variables: bool) -> Result<Self, ConditionError> {
        let (quantifier, rest) = match operator.split_once(':') {
            None => (Quantifier::None, operator),
            Some(("ForAllValues", rest)) => (Quantifier::All, rest),
            Some(("ForAnyValue", rest)) => (Quantifier::Any, rest),
            Some(_) => return Err(ConditionError::Operator),
        };
        let (name, if_exists) = match rest.strip_suffix("IfExists") {
            Some(name) => (name, true),
            None => (rest, false),
        };
        let (test, negated) = test_of(name).ok_or(ConditionError::Operator)?;
        if test == Test::Null && (if_exists || quantifier != Quantifier::None) {
            return Err(ConditionError::Operator);
        }
        let values = values.iter().map(|text| Value::parse(test, text, variables)).collect::<Option<Vec<_>>>();
        let wrong = if test == Test::Address { ConditionError::Address } else { ConditionError::Value };
        let values = values.filter(|values| !values.is_empty()).ok_or(wrong)?;
        Ok(Self { test, negated, if_exists, quantifier, key: key.to_ascii_lowercase(), values })
    }

    /// Whether it holds for a request with these keys.
    pub fn holds(&self, context: &Context) -> bool {
        let found = context.values(&self.key);
        if self.test == Test::Null {
            return self.values.contains(&Value::Flag(found.is_empty()));
        }
        if found.is_empty() {
            return self.if_exists
                || match self.quantifier {
                    Quantifier::None => self.negated,
                    Quantifier::All => true,
                    Quantifier::Any => false,
                };
        }
        let matches_one = |found: &String| self.values.iter().any(|wanted| wanted.matches(self.test, found, context));
        match (self.quantifier, self.negated) {
            (Quantifier::None | Quantifier::Any, false) => found.iter().any(matches_one),
            (Quantifier::None | Quantifier::All, true) => !found.iter().any(matches_one),
            (Quantifier::All, false) => found.iter().all(matches_one),
            (Quantifier::Any, true) => !found.iter().all(matches_one),
        }
    }

    /// Its key, in lower case.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The texts this condition limits its key to, when there is no other way to meet it: a positive comparison of a
    /// key that must be present with values that hold no variable and no wildcard.
    pub fn fixed_values(&self) -> Option<Vec<String>> {
        let compares = matches!(self.test, Test::Text { .. } | Test::Arn);
        let must_be_met = compares && !self.negated && !self.if_exists && self.quantifier != Quantifier::All;
        let fixed = |value: &Value| match value {
            Value::Text(template) => template.fixed(),
            _ => None,
        };
        must_be_met.then(|| self.values.iter().map(fixed).collect())?
    }

    /// The networks this condition limits its key to, as (IPv6, prefix length).
    pub fn networks(&self) -> Option<Vec<Network>> {
        let must_be_met = self.test == Test::Address && !self.negated && !self.if_exists;
        let network = |value: &Value| match value {
            Value::Network(network) => Some(*network),
            _ => None,
        };
        (must_be_met && self.quantifier != Quantifier::All).then(|| self.values.iter().map(network).collect())?
    }
}

/// The test an operator makes, and whether it is negated. Operators are compared as they are written.
fn test_of(operator: &str) -> Option<(Test, bool)> {
    let text = |ignore_case, wildcards| Test::Text { ignore_case, wildcards };
    Some(match operator {
        "StringEquals" => (text(false, false), false),
        "StringNotEquals" => (text(false, false), true),
        "StringEqualsIgnoreCase" => (text(true, false), false),
        "StringNotEqualsIgnoreCase" => (text(true, false), true),
        "StringLike" => (text(false, true), false),
        "StringNotLike" => (text(false, true), true),
        "NumericEquals" => (Test::Number(Order::Equal), false),
        "NumericNotEquals" => (Test::Number(Order::Equal), true),
        "NumericLessThan" => (Test::Number(Order::Less), false),
        "NumericLessThanEquals" => (Test::Number(Order::LessOrEqual), false),
        "NumericGreaterThan" => (Test::Number(Order::Greater), false),
        "NumericGreaterThanEquals" => (Test::Number(Order::GreaterOrEqual), false),
        "DateEquals" => (Test::Date(Order::Equal), false),
        "DateNotEquals" => (Test::Date(Order::Equal), true),
        "DateLessThan" => (Test::Date(Order::Less), false),
        "DateLessThanEquals" => (Test::Date(Order::LessOrEqual), false),
        "DateGreaterThan" => (Test::Date(Order::Greater), false),
        "DateGreaterThanEquals" => (Test::Date(Order::GreaterOrEqual), false),
        "Bool" => (Test::Flag, false),
        "BinaryEquals" => (Test::Binary, false),
        "IpAddress" => (Test::Address, false),
        "NotIpAddress" => (Test::Address, true),
        // "ArnEquals and ArnLike behave identically."
        "ArnEquals" | "ArnLike" => (Test::Arn, false),
        "ArnNotEquals" | "ArnNotLike" => (Test::Arn, true),
        "Null" => (Test::Null, false),
        _ => return None,
    })
}

impl Value {
    fn parse(test: Test, text: &str, variables: bool) -> Option<Self> {
        Some(match test {
            Test::Text { wildcards, .. } => Self::Text(Template::parse(text, Reading { wildcards, variables })?),
            Test::Arn => Self::Text(Template::parse(text, Reading { wildcards: true, variables })?),
            Test::Number(_) => Self::Number(number(text)?),
            Test::Date(_) => Self::Date(date(text)?),
            Test::Flag | Test::Null => Self::Flag(flag(text)?),
            Test::Binary => Self::Binary(BASE64.decode(text.as_bytes()).ok()?),
            Test::Address => Self::Network(Network::parse(text)?),
        })
    }

    /// Whether a value of the request meets this one; a value that cannot be compared does not.
    fn matches(&self, test: Test, found: &str, context: &Context) -> bool {
        match (self, test) {
            (Self::Text(template), Test::Text { ignore_case, .. }) => template.expand(context).is_some_and(|pattern| {
                if ignore_case { matches(&lower(&pattern), &found.to_lowercase()) } else { matches(&pattern, found) }
            }),
            (Self::Text(template), Test::Arn) => {
                template.expand(context).is_some_and(|pattern| arn_matches(&pattern, found))
            }
            (Self::Number(wanted), Test::Number(order)) => {
                number(found).and_then(|found| found.partial_cmp(wanted)).is_some_and(|found| order.accepts(found))
            }
            (Self::Date(wanted), Test::Date(order)) => {
                date(found).is_some_and(|found| order.accepts(found.cmp(wanted)))
            }
            (Self::Flag(wanted), Test::Flag) => flag(found) == Some(*wanted),
            (Self::Binary(wanted), Test::Binary) => BASE64.decode(found.as_bytes()).is_ok_and(|found| found == *wanted),
            (Self::Network(network), Test::Address) => {
                found.parse().is_ok_and(|address: IpAddr| network.contains(address))
            }
            _ => false,
        }
    }
}

fn number(text: &str) -> Option<f64> {
    text.trim().parse().ok().filter(|number: &f64| number.is_finite())
}

/// An ISO 8601 date, or seconds since the epoch.
fn date(text: &str) -> Option<u64> {
    let seconds = || text.parse::<u64>().ok()?.checked_mul(1000);
    parse_iso(text).or_else(seconds)
}

fn flag(text: &str) -> Option<bool> {
    if text.eq_ignore_ascii_case("true") { Some(true) } else { text.eq_ignore_ascii_case("false").then_some(false) }
}

fn lower(pattern: &[Token]) -> Vec<Token> {
    let lower = |token: &Token| match token {
        Token::Exactly(c) => c.to_lowercase().map(Token::Exactly).collect(),
        other => vec![*other],
    };
    pattern.iter().flat_map(lower).collect()
}

/// Compares the six parts of an ARN one by one, so that a wildcard does not reach over a colon; the last part holds all
/// further colons. A lone `*` is every ARN.
fn arn_matches(pattern: &[Token], found: &str) -> bool {
    if pattern == [Token::Run] {
        return true;
    }
    let mut patterns = pattern.splitn(6, |token| *token == Token::Exactly(':'));
    let mut parts = found.splitn(6, ':');
    let all = (0..6).all(|_| match (patterns.next(), parts.next()) {
        (Some(pattern), Some(part)) => matches(pattern, part),
        _ => false,
    });
    all && patterns.next().is_none()
}

/// A CIDR block; IPv4 as IPv4-mapped IPv6, so that both ways to write an address are one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    bits: u128,
    prefix: u32,
    /// Written as IPv4.
    pub v4: bool,
}

impl Network {
    /// Reads `192.0.2.0/24`, `2001:db8::/32` or a single address.
    fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix.parse::<u32>().ok()?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let v4 = address.is_ipv4();
        let width = if v4 { 32 } else { 128 };
        let prefix = prefix.unwrap_or(width);
        (prefix <= width).then(|| Self { bits: bits(address), prefix: prefix + 128 - width, v4 })
    }

    fn contains(self, address: IpAddr) -> bool {
        // A shift by all 128 bits is everything.
        let shift = 128 - self.prefix;
        (self.bits ^ bits(address)).checked_shr(shift).unwrap_or(0) == 0
    }

    /// Prefix length as its family writes it.
    pub fn prefix_len(self) -> u32 {
        if self.v4 { self.prefix - 96 } else { self.prefix }
    }

    /// Whether all of it is private (RFC 1918).
    pub fn is_private(self) -> bool {
        let blocks = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"];
        let within = |block: &str| {
            Self::parse(block).is_some_and(|block| {
                block.prefix <= self.prefix
                    && (block.bits ^ self.bits).checked_shr(128 - block.prefix).unwrap_or(0) == 0
            })
        };
        self.v4 && blocks.into_iter().any(within)
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}
