//! Policy variables: `${aws:username}`, `${aws:PrincipalTag/team, 'none'}`, and `${*}`, `${?}`, `${$}` for the
//! characters themselves (<https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_variables.html>).

use super::Context;
use crate::s3::pattern::{Token, tokens};

/// A text with variables, and perhaps wildcards, as a policy's `Resource` or condition value has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Token(Token),
    Variable { key: String, default: Option<String> },
}

/// How the characters of a template are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// `*` and `?` are wildcards.
    pub wildcards: bool,
    /// `${…}` is a variable: since version 2012-10-17 of the language.
    pub variables: bool,
}

impl Template {
    /// Reads a template; `None` for a variable that does not end or has no name.
    pub fn parse(text: &str, reading: Reading) -> Option<Self> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${").filter(|_| reading.variables) {
            push_text(&mut pieces, before, reading);
            let (inside, after) = after.split_once('}')?;
            pieces.push(match inside.trim() {
                "*" => Piece::Token(Token::Exactly('*')),
                "?" => Piece::Token(Token::Exactly('?')),
                "$" => Piece::Token(Token::Exactly('$')),
                inside => variable(inside)?,
            });
            rest = after;
        }
        push_text(&mut pieces, rest, reading);
        Some(Self(pieces))
    }

    /// The pattern for this request; `None` when a variable has no value, or several, and no default. What stands
    /// for a variable is literal: a user named `*` is not everybody.
    pub fn expand(&self, context: &Context) -> Option<Vec<Token>> {
        let mut pattern = Vec::with_capacity(self.0.len());
        for piece in &self.0 {
            match piece {
                Piece::Token(token) => pattern.push(*token),
                Piece::Variable { key, default } => {
                    let value = match context.values(key) {
                        [value] => value,
                        [] => default.as_ref()?,
                        _ => return None,
                    };
                    pattern.extend(value.chars().map(Token::Exactly));
                }
            }
        }
        Some(pattern)
    }

    /// The text it stands for in every request: without variables and wildcards.
    pub fn fixed(&self) -> Option<String> {
        let literal = |piece: &Piece| match piece {
            Piece::Token(Token::Exactly(c)) => Some(*c),
            _ => None,
        };
        self.0.iter().map(literal).collect()
    }
}

fn push_text(pieces: &mut Vec<Piece>, text: &str, reading: Reading) {
    if reading.wildcards {
        pieces.extend(tokens(text).map(Piece::Token));
    } else {
        pieces.extend(text.chars().map(|c| Piece::Token(Token::Exactly(c))));
    }
}

fn variable(inside: &str) -> Option<Piece> {
    let (key, default) = match inside.split_once(',') {
        Some((key, default)) => (key.trim(), Some(default.trim().strip_prefix('\'')?.strip_suffix('\'')?.to_owned())),
        None => (inside, None),
    };
    let named = !key.is_empty() && !key.contains(|c: char| c.is_whitespace() || matches!(c, '$' | '{' | '\''));
    named.then(|| Piece::Variable { key: key.to_ascii_lowercase(), default })
}
