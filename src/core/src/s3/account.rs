//! Accounts: who owns buckets and objects. An account is its name; number and canonical id follow from it, so that every
//! peer knows them without asking and configurations written for one pool fit another.

use super::Refusal;

/// The account of the pool itself: its root key, and all users that are not put elsewhere.
const MAIN: &str = "palm";
/// Longest name.
const NAME_MAX: usize = 64;

/// An account.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Account {
    name: String,
}

impl Account {
    /// The account of the pool.
    pub fn main() -> Self {
        Self { name: MAIN.to_owned() }
    }

    /// An account by its name: 1 to 64 of `a-z`, `0-9`, `-` and `_`, and some that IAM allows in names.
    pub fn named(name: &str) -> Result<Self, Refusal> {
        let valid = (1..=NAME_MAX).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.@+=".contains(&byte));
        if valid {
            Ok(Self { name: name.to_owned() })
        } else {
            Err(Refusal::invalid_argument("Not a name of an account"))
        }
    }

    /// Its name, which is its display name too.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// 12 digits, as ARNs have them.
    pub fn number(&self) -> String {
        number_of(&self.hash())
    }

    /// The number of the account with this canonical id; `None` for what is no such id.
    pub fn number_of(canonical_id: &str) -> Option<String> {
        let hash = data_encoding::HEXLOWER.decode(canonical_id.as_bytes()).ok()?;
        (hash.len() == 32).then(|| number_of(&hash))
    }

    /// 64 hexadecimal digits, as ACLs and owners of buckets have them.
    pub fn canonical_id(&self) -> String {
        data_encoding::HEXLOWER.encode(&self.hash())
    }

    fn hash(&self) -> [u8; 32] {
        blake3::derive_key("palm 2026-11 account", self.name.as_bytes())
    }
}

fn number_of(hash: &[u8]) -> String {
    let digits = u64::from_be_bytes(*hash.first_chunk().unwrap_or(&[0; 8])) % 1_000_000_000_000;
    format!("{digits:012}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: a canonical id stands in a bucket's ACL for years. Danger: a new PALM derives another one, and its owner is
    /// locked out. Expectation: these values for ever.
    #[test]
    fn an_account_is_always_the_same() {
        let main = Account::main();
        assert_eq!(main.number(), "376649361695");
        assert_eq!(main.canonical_id(), "ab3c5a4f83da691f5dd26b028643300ba1f52cc74eb8055534294ca1daee8609");
        assert_eq!(Account::number_of(&main.canonical_id()), Some(main.number()));
        assert_eq!(Account::number_of("ab"), None);
        assert_eq!(Account::named("palm"), Ok(main));
        assert!(
            Account::named("").is_err() && Account::named("a b").is_err() && Account::named(&"a".repeat(65)).is_err()
        );
    }
}
