//! Where a store is, by its URL.

use std::borrow::Cow;
use std::path::PathBuf;

use super::{Decorations, Url};

/// The name of a domain is no longer.
pub const MAX_DOMAIN_BYTES: usize = 60;
/// Options of a program that say how much it keeps, and not where.
const BOUNDS: [&str; 2] = ["max_bytes", "reserve"];

/// Where the store at a URL is, under which it is known from start to start: the URL without its options. Those of an `exec:`
/// say where its program keeps things; they may have secrets, so they stand there as a hash: `exec:///srv/program#0f3a5c77`. In which
/// order they are given, and how much may be kept, makes no difference.
pub fn place(url: &str) -> Cow<'_, str> {
    let bare = without_options(url);
    let parsed = Url::parse(url).ok().filter(|parsed| parsed.scheme == "exec");
    let Some((_, mut options)) = parsed.and_then(|parsed| Decorations::of(&parsed).ok()) else { return bare.into() };
    options.retain(|(name, _)| !BOUNDS.contains(name));
    options.sort_unstable();
    if options.is_empty() {
        return bare.into();
    }
    let options: Vec<String> = options.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    let hash = blake3::hash(options.join("&").as_bytes()).to_hex();
    format!("{bare}#{}", &hash[..8]).into()
}

/// A URL without its options.
pub(crate) fn without_options(url: &str) -> &str {
    url.split_once('?').map_or(url, |(bare, _)| bare).trim_end_matches('/')
}

/// What the store at a URL fails together with: a host, or a room and a host in it as `room/host`. `None` where it does not say.
pub fn domain(url: &str) -> Option<&str> {
    let options = Url::parse(url).ok()?.options().ok()?;
    options.into_iter().find_map(|(name, value)| (name == "domain" && is_domain(value)).then_some(value))
}

/// Whether this is a name for a domain: letters, digits, blanks and `-_./`, not too long.
pub fn is_domain(name: &str) -> bool {
    let fits = |letter: char| letter.is_alphanumeric() || " -_./".contains(letter);
    !name.trim().is_empty() && !name.starts_with('/') && name.len() <= MAX_DOMAIN_BYTES && name.chars().all(fits)
}

/// The directory that the store at this URL has to itself; `None` where it has none of this machine's.
pub(crate) fn own_directory(url: &str) -> Option<PathBuf> {
    let url = Url::parse(url).ok().filter(|url| ["disk", "rocksdb"].contains(&url.scheme))?;
    let dir = url.path.strip_prefix("//")?;
    (dir.starts_with('/') && dir.len() > 1).then(|| PathBuf::from(dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One program keeps fragments in two directories. Danger: both are taken for one place, and the second is refused; a bound that is
    /// raised makes another place; a password gets into logs. Expectation: what says where counts, and nothing else; elsewhere no
    /// option does.
    #[test]
    fn a_program_s_options_say_where_it_keeps_things() {
        let one = place("exec:///srv/program?dir=/a&password=hidden");
        assert!(one.starts_with("exec:///srv/program#") && !one.contains("hidden"), "{one}");
        for same in ["password=hidden&dir=/a", "dir=/a&max_bytes=5&password=hidden&cache=1MiB&domain=nas"] {
            assert_eq!(place(&format!("exec:///srv/program?{same}")), one);
        }
        for other in ["dir=/b&password=hidden", "dir=/a"] {
            assert_ne!(place(&format!("exec:///srv/program?{other}")), one);
        }
        assert_eq!(place(&one), one, "a place is its own place");
        for (url, bare) in [("exec:///p?max_bytes=1", "exec:///p"), ("disk:///a/?reserve=1", "disk:///a"), ("no", "no")]
        {
            assert_eq!(place(url), bare);
        }
    }

    #[test]
    fn domains_are_named_in_urls() {
        assert_eq!(domain("exec:///p?dir=/a&domain=attic/nas"), Some("attic/nas"));
        assert_eq!(domain("disk:///a?domain=rack 1"), Some("rack 1"));
        assert_eq!(domain("disk:///a?max_bytes=1"), None);
        for wrong in ["", "/", " ", "a,b", "a\nb", &"d".repeat(MAX_DOMAIN_BYTES + 1)] {
            assert!(!is_domain(wrong), "{wrong:?}");
        }
    }
}
