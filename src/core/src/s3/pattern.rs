//! Wildcards: `*` for any run of characters, `?` for one.

/// One element of a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token {
    /// This character and no other.
    Exactly(char),
    /// `?`: any one character.
    One,
    /// `*`: any run, also an empty one.
    Run,
}

/// The tokens of a text in which `*` and `?` are wildcards.
pub fn tokens(text: &str) -> impl Iterator<Item = Token> + '_ {
    text.chars().map(|c| match c {
        '*' => Token::Run,
        '?' => Token::One,
        c => Token::Exactly(c),
    })
}

/// Whether the pattern matches the whole text.
///
/// A `*` that has matched enough for the pattern's next `*` to be reached is never reconsidered: the later one can
/// take up whatever the earlier could. So the work is at most pattern length times text length, whatever the pattern,
/// and no recursion.
pub fn matches(pattern: &[Token], text: &str) -> bool {
    let (mut at, mut rest) = (0, text.chars());
    // Where to go on when the current run must take one more character.
    let mut retry: Option<(usize, std::str::Chars<'_>)> = None;
    loop {
        let mut ahead = rest.clone();
        let fits = match (pattern.get(at), ahead.next()) {
            (Some(Token::Run), _) => {
                at += 1;
                retry = Some((at, rest.clone()));
                continue;
            }
            (None, None) => return true,
            (Some(Token::One), Some(_)) => true,
            (Some(Token::Exactly(wanted)), Some(found)) => *wanted == found,
            _ => false,
        };
        if fits {
            at += 1;
            rest = ahead;
            continue;
        }
        let Some((after_run, from)) = &mut retry else { return false };
        if from.next().is_none() {
            return false;
        }
        (at, rest) = (*after_run, from.clone());
    }
}

/// [`matches()`] on a pattern given as text.
pub fn matches_text(pattern: &str, text: &str) -> bool {
    matches(&tokens(pattern).collect::<Vec<_>>(), text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a pattern means, by trying everything.
    fn by_definition(pattern: &[Token], text: &[char]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, None) => true,
            (Some((Token::Run, rest)), _) => (0..=text.len()).any(|taken| by_definition(rest, &text[taken..])),
            (Some((Token::One, rest)), Some((_, after))) => by_definition(rest, after),
            (Some((Token::Exactly(wanted), rest)), Some((found, after))) => {
                wanted == found && by_definition(rest, after)
            }
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(pattern in "[ab*?é]{0,8}", text in "[abé]{0,10}") {
            let tokens: Vec<Token> = tokens(&pattern).collect();
            let text_chars: Vec<char> = text.chars().collect();
            prop_assert_eq!(matches(&tokens, &text), by_definition(&tokens, &text_chars));
        }
    }

    /// Scenario: a policy of 20 KiB made of `*a*a*a…` is asked about a key of nothing but `a`. Danger: a matcher that
    /// backtracks into every star takes longer than the universe. Expectation: an answer, in bounded steps.
    #[test]
    fn no_pattern_is_slow() {
        let hostile = "*a".repeat(10_000) + "b";
        let text = "a".repeat(1024);
        assert!(!matches_text(&hostile, &text));
        assert!(!matches_text(&("*a".repeat(400) + "*b"), &text));
        assert!(matches_text(&("*a".repeat(400) + "*"), &text));
    }
}
