//! The names of all settings: which exist, which was meant, and where a file has them.

use toml::de::{DeTable, DeValue};

/// Every setting, and whether it is a list. A test compares it with the struct.
pub(super) const NAMES: &[(&str, bool)] = &[
    ("data", false),
    ("name", false),
    ("s3.enabled", false),
    ("s3.address", false),
    ("s3.domains", true),
    ("s3.website_domains", true),
    ("s3.custom_domains", false),
    ("s3.tls_address", false),
    ("s3.tls_certificate", false),
    ("s3.tls_key", false),
    ("s3.region", false),
    ("quic.address", false),
    ("admin.address", false),
    ("discovery.mdns", false),
    ("discovery.interfaces", true),
    ("discovery.peers", true),
    ("backend.enabled", false),
    ("backend.url", false),
    ("backend.urls", true),
    ("backend.max_bytes", false),
    ("backend.reserve", false),
    ("backend.domain", false),
    ("traffic.bandwidth", false),
    ("traffic.quiet", false),
    ("traffic.quiet_bandwidth", false),
    ("members.grace", false),
    ("repair.bandwidth", false),
    ("repair.quiet", false),
    ("repair.quiet_bandwidth", false),
    ("repair.every", false),
    ("repair.settle", false),
    ("scrub.period", false),
    ("collection.grace", false),
    ("collection.released", false),
    ("collection.trash", false),
    ("collection.every", false),
    ("lifecycle.day", false),
    ("notify.targets", true),
    ("access_log.every", false),
    ("log.format", false),
    ("log.level", false),
    ("log.audit", false),
    ("log.audit_writes", false),
    ("pool.name", false),
    ("pool.max_members", false),
    ("pool.policy", false),
    ("pool.open", false),
    ("pool.consistency", false),
    ("pool.when_minority", false),
    ("pool.storage_classes", true),
];

pub(super) fn is_list(name: &str) -> bool {
    NAMES.iter().any(|&(known, list)| known == name && list)
}

/// The setting whose name is nearest.
pub(super) fn nearest(name: &str) -> &'static str {
    let mut names = NAMES.iter().map(|&(known, _)| known);
    // A name written without its table ("address") is nearest to one that ends so.
    let ends = names.clone().find(|known| known.rsplit('.').next() == Some(name));
    ends.unwrap_or_else(|| nearest_among(name, &mut names))
}

/// The nearest of some names.
pub(super) fn nearest_among<'a>(name: &str, known: &mut dyn Iterator<Item = &'a str>) -> &'a str {
    known.min_by_key(|known| distance(name, known)).unwrap_or_default()
}

/// Levenshtein's: letters to insert, remove or change.
pub(super) fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &y) in b.iter().enumerate() {
            let changed = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// The first name in a file that is no setting, and its line (from 1). An error is not TOML.
pub(super) fn unknown_in_file(text: &str) -> Result<Option<(String, usize)>, String> {
    let mut unknown = None;
    walk(text, &mut |name, line, is_table| {
        let known = NAMES.iter().any(|&(known, _)| {
            known == name || is_table && known.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'))
        });
        if !known && unknown.as_ref().is_none_or(|&(_, first)| line < first) {
            unknown = Some((name.to_owned(), line));
        }
    })?;
    Ok(unknown)
}

/// The line of a setting in a file.
pub(super) fn line_of(text: &str, name: &str) -> Option<usize> {
    let mut found = None;
    walk(text, &mut |known, line, _| {
        if known == name {
            found = Some(line);
        }
    })
    .ok()?;
    found
}

/// Visits every name of a file with its line and whether it is a table. An unknown table is not entered.
fn walk(text: &str, visit: &mut dyn FnMut(&str, usize, bool)) -> Result<(), String> {
    let document = DeTable::parse(text).map_err(|error| error.to_string())?;
    walk_table(text, "", document.get_ref(), visit);
    Ok(())
}

fn walk_table(text: &str, prefix: &str, table: &DeTable<'_>, visit: &mut dyn FnMut(&str, usize, bool)) {
    for (key, value) in table {
        let name = if prefix.is_empty() { key.get_ref().to_string() } else { format!("{prefix}.{}", key.get_ref()) };
        let line = text[..key.span().start].matches('\n').count() + 1;
        match value.get_ref() {
            DeValue::Table(inner) if prefix.is_empty() => {
                visit(&name, line, true);
                if NAMES.iter().any(|(known, _)| known.starts_with(&format!("{name}."))) {
                    walk_table(text, &name, inner, visit);
                }
            }
            _ => visit(&name, line, false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A typing error must lead back to the name that was meant.
    #[test]
    fn the_nearest_name_is_what_was_meant() {
        assert_eq!(nearest("s3.adress"), "s3.address");
        assert_eq!(nearest("backend.max_byte"), "backend.max_bytes");
        assert_eq!(nearest("interfaces"), "discovery.interfaces");
        assert_eq!(nearest("dta"), "data");
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
    }
}
