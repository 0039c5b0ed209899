//! JSON as policies need it: an element given twice is an error, not the last one's victory.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// A JSON value; its nesting is bounded by `serde_json` (128).
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    /// `null`.
    Null,
    /// A text, number or boolean: policies treat `true` and `"true"` alike.
    Scalar(String, Kind),
    /// An array.
    List(Vec<Node>),
    /// An object, in its order.
    Object(Vec<(String, Node)>),
}

/// What a scalar was written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Number,
    Boolean,
}

impl Node {
    /// Its text, when it was written as one.
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Scalar(text, Kind::Text) => Some(text),
            _ => None,
        }
    }

    /// The items of a list, or this alone: nearly everything in a policy may be given either way.
    pub(super) fn one_or_many(&self) -> &[Node] {
        match self {
            Self::List(items) => items,
            other => std::slice::from_ref(other),
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Scalar(value.to_string(), Kind::Boolean))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Scalar(value.to_string(), Kind::Number))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Scalar(value.to_string(), Kind::Number))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Scalar(value.to_string(), Kind::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Scalar(value.to_owned(), Kind::Text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Node::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Node, A::Error> {
        let mut seen = std::collections::BTreeSet::new();
        let mut entries = Vec::new();
        while let Some((name, value)) = object.next_entry::<String, Node>()? {
            if !seen.insert(name.clone()) {
                return Err(A::Error::custom("element given twice"));
            }
            entries.push((name, value));
        }
        Ok(Node::Object(entries))
    }
}
