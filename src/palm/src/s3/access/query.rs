//! Pairs of names and values as query strings and `application/x-www-form-urlencoded` bodies have them.

/// Decoded pairs, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads a query string or a form. Nothing is refused: what is no escape stands for itself, and what is no UTF-8
    /// becomes the replacement character, which no name and no value has.
    pub fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        Self(
            pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).map(|(k, v)| (decode(k), decode(v))).collect(),
        )
    }

    /// The first value of a name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// Percent escapes and `+` decoded.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        let escaped = || data_encoding::HEXUPPER_PERMISSIVE.decode(after.get(..2)?).ok()?.first().copied();
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => match escaped() {
                Some(escaped) => {
                    bytes.push(escaped);
                    rest = after.get(2..).unwrap_or_default();
                }
                None => bytes.push(b'%'),
            },
            byte => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: parameters as clients write them, some broken. Danger: a policy judges another prefix than the operation
    /// lists. Expectation: decoded once, as s3s does.
    #[test]
    fn pairs_are_decoded_once() {
        let query = Query::parse("prefix=a%2Fb+c&list-type=2&acl&x=%25%32&&bad=%zz%e2%8");
        assert_eq!(query.get("prefix"), Some("a/b c"));
        assert_eq!(query.get("list-type"), Some("2"));
        assert_eq!(query.get("acl"), Some(""));
        assert_eq!(query.get("x"), Some("%2"));
        assert_eq!(query.get("none"), None);
        assert_eq!(query.get("bad"), Some("%zz\u{fffd}%8"));
        assert_eq!(query.0.len(), 5);
    }
}
